"""Parallel residual adapters with dropout on a wider network (figure 4a).

python train.py --config configs/decathlon/parallel_wide.py --workdir runs/decathlon/parallel_wide

The backbone is that of configs/decathlon/pretrain_wide.py. For the figure's other points set
--config.backbone.width (in both) and --config.adapter.options="{'dropout': (0.25, 0.25)}".
"""

from configs import decathlon


def get_config():
    config = decathlon.of("parallel", "parallel_wide", init_from="runs/decathlon/pretrain_wide")
    config.backbone.width = 2.0
    config.adapter.options.dropout = (0.5, 0.5)
    return config
