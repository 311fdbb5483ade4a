"""Series residual adapters (table 1), on a backbone that was pre-trained with them.

python train.py --config configs/decathlon/series.py --workdir runs/decathlon/series

That is runs/decathlon/pretrain_series, of configs/decathlon/pretrain_series.py.
"""

from configs import decathlon


def get_config():
    return decathlon.of("series", "series", init_from="runs/decathlon/pretrain_series")
