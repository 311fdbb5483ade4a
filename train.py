"""Train the domains of a config and evaluate the family.

python train.py --config configs/parallel.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/parallel
"""

from absl import flags
from ml_collections import config_flags

from radapt_jax import report, startup
from radapt_jax.failures import DomainsFailed
from radapt_jax.loop import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file("config", help_string="a recipe: configs/NAME.py")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where the run is kept; resumed if it exists", required=True
)
flags.mark_flag_as_required("config")


def main(_: list[str]) -> None:
    try:
        rows = train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    except DomainsFailed as failed:
        if failed.rows:
            print(report.table(failed.rows))
        raise
    print(report.table(rows))
    print(f"Written to {_WORKDIR.value}: results.md, results.json, results.png.")


if __name__ == "__main__":
    startup.run(main)
