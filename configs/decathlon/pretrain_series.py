"""Pre-train the shared weights with series adapters inside, as configs/decathlon/series.py wants.

python train.py --config configs/decathlon/pretrain_series.py \
    --workdir runs/decathlon/pretrain_series
"""

from configs.decathlon import pretrain


def get_config():
    config = pretrain.get_config()
    config.adapter.kind = "series"
    return config
