"""Train the domains of a config and evaluate the family.

python train.py --config configs/parallel.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/parallel

On several hosts it is started on each of them; see docs/scale.md.
"""

from radapt_jax import startup
from radapt_jax.commands import train

if __name__ == "__main__":
    startup.run(train.main)
