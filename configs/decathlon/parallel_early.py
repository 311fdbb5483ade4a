"""Parallel residual adapters in the early stage alone (table 1).

python train.py --config configs/decathlon/parallel_early.py --workdir runs/decathlon/parallel_early
"""

from configs import decathlon


def get_config():
    config = decathlon.of("parallel", "parallel_early")
    config.adapter.stages = "early"
    return config
