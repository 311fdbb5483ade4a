"""Train shared weights on several domains at once, each taught by a network of its own.

python train.py --config configs/finetune.py --config.domains=cifar100,gtsrb,omniglot \\
    --config.init_from=runs/pretrain --workdir runs/finetune
python train.py --config configs/distill.py --config.domains=cifar100,gtsrb,omniglot \\
    --config.init_from=runs/pretrain --config.distill.teachers=runs/finetune \\
    --workdir runs/universal

Each step sees a batch of every domain, and minimises cross-entropy, 1 - CKA of the features and the
KL divergence of the logits (Li, Liu and Bilen, arXiv 2204.02744). Every domain has norms and a head
of its own, and adapters with --config.adapter.kind=parallel. Other runs take the new shared weights
with --config.init_from=runs/universal; their domains start from the norms of the first domain here.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "distill"
    config.distill.on = True
    config.optim.learning_rate = 0.01
    config.optim.decay.filters = 5e-4
    return config
