"""Train norms and heads (Bilen and Vedaldi, 2017).

python train.py --config configs/decathlon/norm.py --workdir runs/decathlon/norm
"""

from configs import decathlon


def get_config():
    return decathlon.of("norm", "norm")
