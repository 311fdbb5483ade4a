"""Parallel residual adapters in the late stage alone (table 1).

python train.py --config configs/decathlon/parallel_late.py --workdir runs/decathlon/parallel_late
"""

from configs import decathlon


def get_config():
    config = decathlon.of("parallel", "parallel_late")
    config.adapter.stages = "late"
    return config
