"""Real images that ship inside Python packages: a family in minutes, without a download.

python train.py --config configs/quickstart.py:scratch --workdir runs/quickstart/pretrain
python train.py --config configs/quickstart.py:parallel \
    --config.init_from=runs/quickstart/pretrain --workdir runs/quickstart

The name after the colon is a recipe of configs/, with its variant if it has one:
configs/quickstart.py:modulation:factored. Pre-training tells from which of 16 photographs a patch
is; the targets are handwritten digits, surfaces and faces.
"""

from configs import base


def get_config(recipe="parallel"):
    config = base.recipe(recipe)
    pretraining = config.start == "random"
    compressing = bool(config.compress.kind)  # all domains of the run
    if not compressing:
        config.domains = "pictures" if pretraining else "digits,surfaces,faces"
    if config.distill.on:  # new domains start from the norms of the first
        config.domains = f"pictures,{config.domains}"
    config.data.source = "embedded"
    config.data.resize, config.data.size = 36, 32
    config.options.digits = {"crop": "centre", "flip": False}
    config.backbone.width = 0.25
    config.optim.schedule = "cosine"
    config.train.batch_size = 64 if pretraining else 32
    config.train.steps = 500 if pretraining else 100 if compressing else 300
    config.train.evals = 5
    return config
