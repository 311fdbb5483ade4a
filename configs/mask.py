"""Binary masks on the shared filters: Piggyback (Mallya, Davis and Lazebnik 2018).

python train.py --config configs/mask.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/mask

One bit for each weight (arXiv 1801.06519). From the paper and its code: scores start at 0.01, a
weight is kept above 0.005, gradients pass the threshold unchanged, and scores are trained with Adam
at 1e-4, without decay. Ours: norms and head, which are trained with SGD as by configs/parallel.py
(there, norms stay as they are, and heads are trained with Adam, too), and batch and schedule (there
32 images and 30 epochs with a drop after 15).

configs/mask.py:ours trains scores at 1e-3,
which is better on validation images of short trainings (docs/methods.md).
"""

from configs import base

RATES = {"paper": 1e-4, "ours": 1e-3}


def get_config(recipe="paper"):
    config = base.get_config()
    config.method = "mask"
    config.adapter.kind = "mask"
    config.optim.adapter_optimizer = "adam"
    config.optim.adapter_rate = base.variant(recipe, RATES)
    return config
