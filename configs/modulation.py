"""Modulation adapters: filters scaled by pairs of channels (Iakovleva, Alahari, Verbeek 2023).

python train.py --config configs/modulation.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/modulation

W' = A W, with one factor for each pair of channels (arXiv 2307.08528). The paper's other form, with
factors of A, is configs/modulation.py:factored; its rank is --config.adapter.options.ranks. From
the paper: the equations. Ours: A starts at 1 and decay pulls it to 1, in the factored form as
A = 1 + β γᵀ; the rank; norms of the domain's own; and rates, decay, batch and schedule, which are
those of configs/parallel.py.
"""

from configs import base


def get_config(variant="full"):
    kinds = {"full": "modulation", "factored": "modulation_low_rank"}
    config = base.get_config()
    config.method = config.adapter.kind = base.variant(variant, kinds)
    if variant == "factored":
        config.adapter.options.ranks = base.ranks(0.25)  # half of the full form's parameters
    return config
