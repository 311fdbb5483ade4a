"""Parallel adapters that learn from a network that was finetuned on the same domain.

python train.py --config configs/finetune.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/finetune
python train.py --config configs/taught.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --config.teachers=runs/finetune --workdir runs/taught

The loss is 1/2 cross-entropy + T^2 KL(teacher || network), with both softmaxes at temperature T
(Hinton, Vinyals and Dean 2015, section 2). What is trained, and how long, is as in parallel.py.
"""

from configs import parallel


def get_config():
    config = parallel.get_config()
    config.method = "taught"
    return config
