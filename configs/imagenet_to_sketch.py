"""ImageNet-to-Sketch at 224 px (Mallya et al., 2018): five domains on an ImageNet backbone.

python train.py --config configs/imagenet_to_sketch.py:scratch --workdir runs/sketch/pretrain
python train.py --config configs/imagenet_to_sketch.py:parallel \
    --config.init_from=runs/sketch/pretrain --workdir runs/sketch/parallel

The name after the colon is a recipe of configs/. ImageNet, CUBS, Cars and Flowers are read as
tensorflow-datasets prepares them (array_record) in data/tfds, WikiArt and Sketch from folders
data/wikiart and data/sketch of <split>/<class>/<image>; say otherwise in OPTIONS. As in the
benchmark, targets train on all images that are not for the test; none are held out.
"""

from configs import base

TFDS = {"source": "tfds", "dir": "data/tfds", "val_fraction": 0.0}
FOLDER = {"source": "folder", "dir": "data", "val_fraction": 0.0}
OPTIONS = {
    "imagenet": {**TFDS, "dataset": "imagenet2012"},  # 1,000 classes; test labels are not public
    "cubs": {**TFDS, "dataset": "caltech_birds2011", "adapter_decay": 2e-3},  # 200
    "cars": {**TFDS, "dataset": "cars196", "adapter_decay": 2e-3},  # 196
    "flowers": {  # 102; 2,040 training images
        **TFDS,
        "dataset": "oxford_flowers102",
        "train_on": "train+val",
        "adapter_decay": 2e-3,
    },
    "wikiart": {**FOLDER, "adapter_decay": 5e-4},  # 195
    "sketch": {**FOLDER, "adapter_decay": 5e-4},  # 250
}


def get_config(recipe="parallel"):
    config = base.recipe(recipe)
    pretraining = config.start == "random"
    compressing = bool(config.compress.kind)  # all domains of the run, for the recipe's epochs
    if not compressing:
        config.domains = "imagenet" if pretraining else "cubs,cars,flowers,wikiart,sketch"
    config.data.resize, config.data.size = 256, 224
    for name, options in OPTIONS.items():
        config.options[name] = dict(options)
    config.train.batch_size = 256 if pretraining else 64
    if not compressing:
        config.train.epochs = 90.0 if pretraining else 60.0
    return config
