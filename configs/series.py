"""Series residual adapters, shared filters frozen (NIPS 2017; CVPR 2018, section 3.1.1).

python train.py --config configs/series.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain_series --workdir runs/series

At their best on a backbone that was pre-trained with series adapters inside:
configs/scratch.py --config.adapter.kind=series. Without, see configs/series_off_the_shelf.py.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "series"
    config.adapter.kind = "series"
    return config
