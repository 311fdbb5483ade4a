"""The Visual Decathlon: the recipes of CVPR 2018's table 1, nine domains in one launch each.

    python -m radapt_jax decathlon prepare ARCHIVES data
    python train.py --config configs/decathlon/pretrain.py --workdir runs/decathlon/pretrain
    python train.py --config configs/decathlon/parallel.py --workdir runs/decathlon/parallel
    python eval.py --workdir runs/decathlon/parallel

Batches of 128, 120 epochs, rates a tenth after 80 and 100 (configs/base.py); crop, flip, mean, std
and adapter decay are those of each domain (radapt_jax/data/decathlon/facts.py).
"""

from configs import base

TARGETS = "aircraft,cifar100,daimlerpedcls,dtd,gtsrb,vgg-flowers,omniglot,svhn,ucf101"


def of(recipe, method, domains=TARGETS, init_from="runs/decathlon/pretrain"):
    """Return a recipe of configs/ on domains of the decathlon."""
    config = base.recipe(recipe)
    config.method = method
    config.domains = domains
    config.init_from = init_from
    config.data.source = "decathlon"
    return config
