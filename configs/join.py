"""Add a domain to a jointly compressed family: train γ, norms and head on the family's β.

python train.py --config configs/join.py --config.domains=rocks \
    --config.init_from=runs/compress --workdir runs/joined

With --config.compress.dense=RUN, γ starts at the projection of the dense adapters that RUN has of
the domain, and the domain's card tells what was lost. With --config.compress.fit=alternating,
errors are weighed with what the adapters read on training images. A family whose β is of another
kind is joined with --config.adapter.kind=modulation_joint or conv_lora_joint.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "join"
    config.adapter.kind = "joint"
    return config
