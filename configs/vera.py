"""Two vectors between random matrices: VeRA (Kopiczko, Blankevoort and Asano 2023).

python train.py --config configs/vera.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/vera

α = β diag(inner) γᵀ diag(outer) (arXiv 2310.11454, equation 2). From the paper: "inner" starts at
0.1, "outer" at 0. Ours: β and γ are drawn for each convolution (there, one pair is cut to the size
of each layer), the full rank, norms of the domain's own, and rates, decay, batch and schedule,
which are those of configs/parallel.py (there, Adam for language models).

configs/vera.py:ours trains the two vectors at a rate of 1,
which is better on validation images of short trainings (docs/methods.md).
"""

from configs import base

RATES = {"paper": 0.0, "ours": 1.0}  # 0: as the rest


def get_config(recipe="paper"):
    config = base.get_config()
    config.method = "vera"
    config.adapter.kind = "vera"
    config.adapter.options.ranks = base.ranks(1.0)
    config.optim.adapter_rate = base.variant(recipe, RATES)
    return config
