"""Compress a run's parallel adapters jointly, then fine-tune γ, norms and head (CVPR 2018, 3.4).

python train.py --config configs/compress.py --config.init_from=runs/parallel \
    --workdir runs/compress

Over all domains of the run, unless config.domains names some. β is shared and frozen. With
--config.compress.kind=low_rank every domain keeps a β of its own. Runs of configs/modulation.py and
configs/conv_lora.py are compressed with --config.compress.kind=modulation_joint or conv_lora_joint.

--config.compress.fit=alternating fits β and γ to what matters on training images,
--config.compress.bits=4 rounds adapters and trains through the rounding,
--config.compress.distill=True learns from the dense adapters, and
--config.compress.kind=parallel leaves ranks as they are. docs/compression.md compares them.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "joint"
    config.compress.kind = "joint"
    config.optim.learning_rate = 0.01
    config.train.epochs = 20.0
    return config
