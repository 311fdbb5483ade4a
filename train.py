"""Train the domains of a config and evaluate the family.

python train.py --config configs/parallel.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/parallel
"""

import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from radapt_jax import report
from radapt_jax.loop import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file("config", help_string="a recipe: configs/NAME.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run is kept; resumed if it exists")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"found arguments {argv[1:]}; expected flags only (--name=value).")
    logging.info("devices: %s", jax.devices())
    rows = train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    print(report.text(rows))
    print(f"{_WORKDIR.value}/results.md, results.json and results.png hold the same.")


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    try:
        app.run(main)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
