"""Affine masks on the shared filters (Mancini, Ricci, Caputo and Rota Bulò 2018).

python train.py --config configs/affine_mask.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/affine_mask

W' = k0 + k1 W + k2 m + k3 W m with a mask m and four numbers a layer (arXiv 1805.11119). From the
paper: the equation, and Adam. Scores start, are cut and are trained as by configs/mask.py; so are
the four numbers, which start at W' = W. Ours: norms and head, which are trained with SGD as by
configs/parallel.py, and batch and schedule.

configs/affine_mask.py:ours trains masks and numbers at 1e-3,
which is better on validation images of short trainings (docs/methods.md).
"""

from configs import mask


def get_config(recipe="paper"):
    config = mask.get_config(recipe)
    config.method = config.adapter.kind = "affine_mask"
    return config
