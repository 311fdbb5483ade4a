"""Pre-train a network of twice the channels, for configs/decathlon/parallel_wide.py.

python train.py --config configs/decathlon/pretrain_wide.py --workdir runs/decathlon/pretrain_wide
"""

from configs.decathlon import pretrain


def get_config():
    config = pretrain.get_config()
    config.backbone.width = 2.0
    return config
