"""Controllers, which mix the outputs of the shared filters (Rosenfeld and Tsotsos 2017).

python train.py --config configs/controller.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/controller

W' = R W with a bias (arXiv 1705.04228, "Incremental learning through deep adaptation"). From the
paper: the equation, and the diagonal start, R = 1; a rate of 0.1 and batches of 128 are its code's,
too. Ours: norms of the domain's own, decay, which pulls R to 1, and the schedule; all these are as
in configs/parallel.py.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "controller"
    config.adapter.kind = "controller"
    return config
