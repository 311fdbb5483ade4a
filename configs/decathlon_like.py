"""Ten small real domains at 32 px, for two CPU cores: pre-train on one, adapt to the others.

python train.py --config configs/decathlon_like.py:scratch --workdir runs/small/pretrain
python train.py --config configs/decathlon_like.py:parallel --config.init_from=runs/small/pretrain \
    --workdir runs/small/parallel

python train.py --config configs/decathlon_like.py:compress --config.init_from=runs/small/parallel \
    --workdir runs/small/compress

python train.py --config configs/decathlon_like.py:finetune --config.init_from=runs/small/pretrain \
    --workdir runs/small/finetune
python train.py --config configs/decathlon_like.py:taught --config.init_from=runs/small/pretrain \
    --config.teachers=runs/small/finetune --workdir runs/small/taught
python train.py --config configs/decathlon_like.py:distill --config.init_from=runs/small/pretrain \
    --config.distill.teachers=runs/small/finetune --workdir runs/small/universal

The name after the colon is a recipe of configs/. The images are expected in
data/decathlon_like/<domain>/{train,test}.tar.gz; say otherwise with --config.data.dir.
Adapter decay follows the size of the training set, as in CVPR 2018, section 4.1, whatever a recipe
has of its own.

Signs and letters are shown whole, as in the paper; `parallel:ours` crops them at random, as all
other images (docs/study.md).
"""

from configs import base

WHOLE = {"crop": "centre", "flip": False}  # signs and letters: neither cropped nor mirrored
OPTIONS = {
    "tiny_imagenet": {"val_fraction": 0.02},
    "chars74k": {**WHOLE, "adapter_decay": 5e-4},
    "cifar100": {"adapter_decay": 5e-4},
    "daimler_ped": {"adapter_decay": 5e-4},
    "dtd10": {"adapter_decay": 2e-3},
    "gtsrb": {**WHOLE, "adapter_decay": 5e-4, "val": "blocks"},  # frames of a track are alike
    "omniglot": {**WHOLE, "adapter_decay": 5e-4},
    "pacs_sketch": {"adapter_decay": 5e-4},
    "rsscn7": {"adapter_decay": 2e-3},
    "vgg_flowers": {"adapter_decay": 2e-3},
}


def get_config(recipe="parallel"):
    config = base.recipe(recipe)
    pretraining = config.start == "random"
    compressing = bool(config.compress.kind)  # all domains of the run
    if not compressing:
        config.domains = "tiny_imagenet" if pretraining else "cifar100,gtsrb,omniglot"
    if config.distill.on:  # new domains start from the norms of the first; epochs are its own
        config.domains = f"tiny_imagenet,{config.domains}"
    config.backbone.width = 0.25
    config.data.dir = "data/decathlon_like"
    config.data.resize, config.data.size = 36, 32
    for name, options in OPTIONS.items():
        config.options[name] = dict(options)
        if recipe == "parallel:ours" and options.get("crop"):
            config.options[name].crop = "random"
    config.train.batch_size = 128 if pretraining else 64
    few = compressing or config.distill.on
    config.train.epochs = 12.0 if pretraining else 4.0 if few else 20.0
    config.train.evals = 12 if pretraining else 2 if compressing else 10
    config.optim.schedule = "cosine"
    if compressing:
        config.optim.learning_rate = 0.03  # of 0.01, 0.03 and 0.1, the best on validation images
    return config
