"""Train heads on frozen features (table 1: feature extractor).

python train.py --config configs/decathlon/linear.py --workdir runs/decathlon/linear
"""

from configs import decathlon


def get_config():
    return decathlon.of("linear", "linear")
