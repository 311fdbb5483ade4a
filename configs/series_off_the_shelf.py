"""Series residual adapters on a backbone that was pre-trained without any.

python train.py --config configs/series_off_the_shelf.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/series_off_the_shelf
"""

from configs import series


def get_config():
    config = series.get_config()
    config.method = "series_off_the_shelf"
    config.source_adapter = "none"
    return config
