"""Train the whole network from random weights; pre-training is this.

    python train.py --config configs/scratch.py --config.domains=imagenet12 --workdir runs/pretrain

Without `init_from`, the first domain's filters become the shared weights of the run. Any other
domain keeps filters of its own. With --config.adapter.kind=series the backbone is pre-trained
with series adapters inside, as configs/series.py wants it.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "scratch"
    config.start = "random"
    config.optim.decay.filters = 5e-4
    return config
