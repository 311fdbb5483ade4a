"""Train the domains of a config and evaluate the family.

radapt train --config parallel --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/parallel

--config takes the name of a recipe that comes with radapt_jax, or the path of a file. On several
hosts the command is started on each of them.
"""

from absl import flags
from ml_collections import config_flags

from radapt_jax.experiment.failures import DomainsFailed
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.report import results
from radapt_jax.utils import distributed

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="a recipe: configs/NAME.py, or the NAME of one that comes with radapt_jax"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where the run is kept; resumed if it exists", required=True
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "one of several processes, which Slurm, Kubernetes, a TPU pod ... tells of",
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "elsewhere: HOST:PORT of process 0")
_PROCESSES = flags.DEFINE_integer("processes", None, "how many there are", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "which this one is, from 0", lower_bound=0)
flags.mark_flag_as_required("config")


def main(_: list[str]) -> None:
    place = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if _DISTRIBUTED.value or place != (None, None, None):
        distributed.initialize(*place)
    try:
        rows = train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    except DomainsFailed as failed:
        if failed.rows and distributed.is_main():
            print(results.table(failed.rows))
        raise
    if distributed.is_main():
        print(results.table(rows))
        print(f"Written to {_WORKDIR.value}: results.md, results.json, results.png.")
