"""Low-rank convolutions beside the shared ones: LoRA for filters (Hu et al. 2021; LoCon).

python train.py --config configs/conv_lora.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/conv_lora

y = f * x + scale γ * (β * x), with β of the filter's size (arXiv 2106.09685, section 4, for
convolutions). From the paper: rank 4, one of those it studies, and γ that starts at 0. Ours: norms
of the domain's own, and rates, decay, batch and schedule, which are those of configs/parallel.py
(there, Adam with rates for language models). Another rank: --config.adapter.options.ranks=8.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "conv_lora"
    config.adapter.kind = "conv_lora"
    config.adapter.options.ranks = base.ranks(4)
    return config
