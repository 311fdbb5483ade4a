"""Joint compression of the parallel adapters with K = C/2 (table 1), fine-tuned.

python train.py --config configs/decathlon/svd.py --workdir runs/decathlon/svd

Of all domains of runs/decathlon/parallel, which configs/decathlon/parallel.py trains.
"""

from configs import decathlon


def get_config():
    return decathlon.of("compress", "joint", domains="", init_from="runs/decathlon/parallel")
