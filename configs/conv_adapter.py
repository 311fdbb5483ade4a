"""Conv-Adapters, a bottleneck with an activation beside a convolution (Chen et al. 2022).

python train.py --config configs/conv_adapter.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/conv_adapter

y = f * x + scale (γ * relu(β * x)) (arXiv 2208.07463, section 3.2), where each convolution of the
backbone carries one. From the paper: the equation. From its code: adapters are trained with Adam
and decoupled decay, at 1e-3 with 1e-4. Ours: a bottleneck of a quarter of the channels, norms of
the domain's own, which are trained with the head by SGD as by configs/parallel.py, and batch and
schedule (there 64 images and 100 epochs).

configs/conv_adapter.py:ours trains adapters at 1e-2,
which is better on validation images of short trainings (docs/methods.md).
"""

from configs import base

RATES = {"paper": 1e-3, "ours": 1e-2}


def get_config(recipe="paper"):
    config = base.get_config()
    config.method = "conv_adapter"
    config.adapter.kind = "conv_adapter"
    config.adapter.options.reduction = 4
    config.optim.adapter_optimizer = "adam"
    config.optim.adapter_rate = base.variant(recipe, RATES)
    config.optim.decay.adapters = 1e-4
    return config
