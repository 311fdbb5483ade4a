"""ResNet28-RAM as its Keras implementation trains it: series adapters with all conventions kept.

python train.py --config configs/ram28.py:a_scratch --config.domains=imagenet12 \
    --workdir runs/ram28_pretrain
python train.py --config configs/ram28.py:a --config.domains=cifar100 \
    --config.init_from=runs/ram28_pretrain --workdir runs/ram28

"a" and "b" are the implementation's two networks, at 64 and at 32 px (docs/networks.md). They train
what is a domain's own, on frozen filters (learnall=False there); with "_scratch" they train
everything from random weights, adapters in place (learnall=True).

Images are standardised each by itself. To have nothing else happen to them, as there, give each
domain config.options.<name> = {"flip": False, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}; without,
they are mirrored, and normalised by channel first. There, a rate ends early when validation stops
improving, the next one starts from the best weights, and rates also shrink a little at each step.
"""

from configs import base

# Gradient of the L2 penalty 2e-4 w^2, which Keras puts on kernels of convolutions alone.
KERNELS = {"a": 4e-4, "b": 0.0}
PIXELS = {"a": 64, "b": 32}


def get_config(variant="a"):
    network, _, start = variant.partition("_")
    if network not in KERNELS or start not in ("", "scratch"):
        raise SystemExit(
            f"error: found variant {variant!r}; expected one of a, b, a_scratch and b_scratch."
        )
    config = base.recipe(start or "series")
    config.backbone.name = "ram28"
    config.backbone.options = {"variant": network, "standardise": True}
    config.adapter.kind = "series"
    config.adapter.options = {"init": "keras_he_normal", "bias": network == "a"}
    config.data.resize = config.data.size = PIXELS[network]
    config.data.squash = True
    config.train.batch_size = 64
    config.train.epochs = 45.0
    config.train.evals = 45
    config.optim.drop_at = (1 / 3, 2 / 3)  # 0.1, 0.01 and 0.001, 15 epochs each
    config.optim.decay.adapters = KERNELS[network]
    config.optim.decay.norms = config.optim.decay.head = 0.0
    if start:
        config.optim.decay.filters = KERNELS[network]
    config.export = "best"
    return config
