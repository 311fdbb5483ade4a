"""Parallel residual adapters in half of the layers (table 1).

python train.py --config configs/decathlon/parallel_half.py --workdir runs/decathlon/parallel_half

The paper does not say which half; these are the first convolutions of the blocks.
"""

from configs import decathlon


def get_config():
    config = decathlon.of("parallel", "parallel_half")
    config.adapter.convs = "first"
    return config
