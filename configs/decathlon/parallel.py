"""Parallel residual adapters (table 1).

python train.py --config configs/decathlon/parallel.py --workdir runs/decathlon/parallel
"""

from configs import decathlon


def get_config():
    return decathlon.of("parallel", "parallel")
