"""Train every domain from random weights, on its own (table 1: scratch).

python train.py --config configs/decathlon/scratch.py --workdir runs/decathlon/scratch

The family is that of the pre-trained backbone; its filters are not used.
"""

from configs import decathlon


def get_config():
    config = decathlon.of("scratch", "scratch")
    config.start = "random"
    return config
