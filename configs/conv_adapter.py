"""Conv-Adapters, a bottleneck with an activation beside a convolution (Chen et al. 2022).

python train.py --config configs/conv_adapter.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/conv_adapter

y = f * x + scale (γ * relu(β * x)) (arXiv 2208.07463, section 3.2), where each convolution of the
backbone carries one. From the paper: the equation. From its code: adapters are trained with Adam
and decoupled decay, at 1e-3 with 1e-4. Ours: a bottleneck of a quarter of the channels, norms of
the domain's own, which are trained with the head by SGD as by configs/parallel.py, and batch and
schedule (there 64 images and 100 epochs).
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "conv_adapter"
    config.adapter.kind = "conv_adapter"
    config.adapter.options.reduction = 4
    config.optim.adapter_optimizer = "adam"
    config.optim.adapter_rate = 1e-3
    config.optim.decay.adapters = 1e-4
    return config
