"""Pre-train the shared weights on ImageNet at 64 px, without adapters.

python train.py --config configs/decathlon/pretrain.py --workdir runs/decathlon/pretrain
"""

from configs import decathlon


def get_config():
    return decathlon.of("scratch", "scratch", domains="imagenet12", init_from="")
