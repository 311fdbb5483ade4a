"""Parallel residual adapters in the mid stage alone (table 1).

python train.py --config configs/decathlon/parallel_mid.py --workdir runs/decathlon/parallel_mid
"""

from configs import decathlon


def get_config():
    config = decathlon.of("parallel", "parallel_mid")
    config.adapter.stages = "mid"
    return config
