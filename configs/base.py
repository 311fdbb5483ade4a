"""Every knob, with its unit. Recipes start from this, or from another recipe."""

import importlib
import inspect
from pathlib import Path

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict()
    config.method = ""  # for tables: the recipe's name, which is checked, or one of your own
    config.domains = ""  # comma-separated; trained one after another
    config.init_from = ""  # workdir of a finished run with shared weights; "": none
    config.start = "backbone"  # a domain's first weights: "backbone" (init_from's) or "random"
    # Workdir of a run that has trained these domains, such as one with configs/finetune.py: each is
    # learnt from, with the loss 1/2 CE + T^2 KL of softmaxes at temperature T. "": none is.
    config.teachers = ""
    config.temperature = 2.0  # T in it
    config.train_fraction = 1.0  # share of each class's training images, for transfer curves
    config.images_per_class = 0  # the most training images of a class; 0: no limit
    config.source_adapter = config_dict.placeholder(str)  # kind that init_from must have; None: any
    config.seed = 0

    config.backbone = config_dict.ConfigDict()
    config.backbone.name = "resnet26"
    config.backbone.width = 1.0  # channel multiplier, if the backbone has one; resnet26: n/32
    config.backbone.options = config_dict.ConfigDict()  # its other options, if it has any
    config.backbone.dtype = "float32"  # of the computation: "float32" or "bfloat16"

    config.adapter = config_dict.ConfigDict()
    config.adapter.kind = "none"  # or a name in radapt_jax/adapters/registry.py; docs/methods.md
    config.adapter.stages = ""  # with adapters; "": all. resnet26: early (with the stem), mid, late
    config.adapter.convs = ""  # of a block, with adapters; "": the usual ones. resnet26: both
    # Options of the kind; others keep their defaults. All kinds have init ("zeros", "he_normal" or
    # "keras_he_normal") and decay (by variable, such as {"beta": None}); docs/methods.md has the
    # rest: ranks and budget, dropout (first, second), bias, threshold, scale, seed, reduction ...
    config.adapter.options = config_dict.ConfigDict()

    config.compress = config_dict.ConfigDict()
    # "": none. Parallel adapters: "joint" (one β for all) or "low_rank" (each its own). Modulation:
    # "modulation_joint" or "modulation_low_rank". Conv_lora: "conv_lora_joint" or "conv_lora".
    # "parallel" and "modulation": they stay as they are, to be fine-tuned or rounded alone.
    config.compress.kind = ""
    config.compress.ranks = "uniform"  # "uniform", "energy" or "budget"
    config.compress.share = 0.5  # uniform: rank over full rank of a layer
    config.compress.energy = 0.9  # energy: share of a layer's squared singular values to keep
    config.compress.budget = 0  # budget: parameters of all β and γ; 0: as many as uniform takes
    # Of parallel adapters: "svd" of the adapters alone; by the moments of training images,
    # "whitened" (one S for all domains) or "alternating" (each its own); docs/compression.md.
    config.compress.fit = "svd"
    config.compress.moments = 1024  # training images of each domain for these moments
    config.compress.bits = 32  # of a value of adapters; 2, 3, 4, 8: trained through the rounding
    config.compress.distill = False  # learn from the dense adapters too: 1/2 CE + T^2 KL
    config.compress.temperature = 2.0  # T in it
    # Instead of kind, share and bits: ways such as "parallel int4, joint 0.5 int4, joint 0.25", of
    # which the smallest is taken that loses at most so many points on validation images.
    config.compress.among = ""
    config.compress.at_most = 0.5
    config.compress.statistics = 1024  # training images for norm statistics anew; 0: keep the old
    config.compress.dense = ""  # to join a family: a run with the domain's dense adapters

    config.distill = config_dict.ConfigDict()
    config.distill.on = False  # train shared filters on all domains at once; see configs/distill.py
    config.distill.teachers = ""  # workdir of a run that has trained each of the domains
    config.distill.features = 1.0  # weight of 1 - CKA of the features, at the start
    config.distill.logits = 1.0  # weight of the KL divergence of the logits, at the start
    config.distill.temperature = 1.0  # of the softmaxes in it
    config.distill.anneal = 1.0  # fraction of the run in which both weights fall to 0

    config.data = config_dict.ConfigDict()
    config.data.source = "folder"  # "folder", "tfds", "decathlon" or "embedded"
    config.data.dir = "data"  # folder of <domain>/<split>/<class>/<image>, or of tfds datasets
    config.data.cache = "~/.cache/radapt_jax"  # folder for decoded images
    config.data.resize = 72  # shorter side of the decoded image, pixels
    config.data.size = 64  # side of the square the network sees, pixels; resnet26: a multiple of 8
    config.data.squash = False  # resize to a square, whatever the aspect ratio
    config.data.val_fraction = 0.1  # share of train, if a domain has no validation split
    config.data.train_on = "train"  # or "train+val", which leaves no validation images
    config.data.max_unreadable = 0.001  # share of a split's images that may be left out
    config.data.on_device = False  # keep decoded images in the device's memory
    # By domain: source, dir, dataset, size, resize, squash, val ("random", or "blocks": the last
    # images of each class, where neighbours look alike), val_fraction, train_on, train_fraction,
    # images_per_class, subset, max_unreadable, interpolation ("bicubic" or "bilinear"), mean, std,
    # crop, flip, adapter_decay. For instance config.options.svhn = {"flip": False}.
    # {"facts": "svhn"} asks for crop, flip and adapter decay of that domain of the decathlon
    # (source "decathlon" has them). These replace size 64, resize 72 and adapter decay 5e-4; any
    # other value that is set stays, and the options of a domain override everything.
    config.options = config_dict.ConfigDict()

    config.train = config_dict.ConfigDict()
    config.train.batch_size = 128  # images in a step, over all devices
    config.train.accumulate = 1  # parts in which a batch is computed, if it does not fit in memory
    config.train.together = 1  # domains trained at once, each on its own device; frozen filters
    config.train.epochs = 120.0
    config.train.steps = 0  # if above 0, instead of epochs
    config.train.evals = 20  # evaluations (and checkpoints) in a run
    config.train.label_smoothing = 0.0  # in [0, 1)
    config.train.mixup = 0.0  # images are mixed by shares of Beta(mixup, mixup); 0: they are not
    # Strength of random changes of shape and colour, in [0, 1], as in RandAugment; 0: none.
    config.train.distortion = 0.0
    config.train.sync_norm = False  # batch statistics over all devices, not for each device
    config.train.views = 0  # linear: kept views of an image; 0: new ones through the network
    config.train.log_every = 50  # steps

    config.optim = config_dict.ConfigDict()
    config.optim.name = "sgd"  # or "adam", whose weight decay is decoupled
    config.optim.learning_rate = 0.1
    config.optim.adapter_optimizer = ""  # of adapters alone, on frozen filters; "": as name
    config.optim.adapter_rate = 0.0  # their highest rate; 0: as learning_rate
    config.optim.momentum = 0.9  # of Adam, that of its first moment
    config.optim.schedule = "steps"  # or "cosine"
    config.optim.drop_at = (80 / 120, 100 / 120)  # fractions of the run
    config.optim.drop_by = 0.1  # factor at each drop
    config.optim.warmup = 0.0  # fraction of the run in which the rate rises linearly
    # Fraction of the run, the last, over which weights are averaged; 0: the last ones count.
    config.optim.average = 0.0
    # Weight decay by label; None freezes. References stay numbers when a recipe sets None. Biases
    # of filters and adapters are trained along, without decay.
    config.optim.decay = config_dict.ConfigDict()
    config.optim.decay.filters = config_dict.placeholder(float)  # shared 3x3 filters
    config.optim.decay.adapters = config_dict.FieldReference(5e-4)  # a domain may set its own
    config.optim.decay.norms = config_dict.FieldReference(5e-4)
    config.optim.decay.head = config_dict.FieldReference(5e-4)

    config.on_nan = "stop"  # or "rewind": go back to the last checkpoint and skip the batch
    config.export = "latest"  # which state becomes the domain: "latest" or "best" on validation
    return config


def recipe(name):
    """Return the config of another recipe, for variants such as configs/quickstart.py:linear.

    The recipe's own variant may follow: configs/quickstart.py:modulation:factored.
    """
    name, colon, own = name.partition(":")
    names = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    if name not in names:
        raise SystemExit(f"error: found recipe {name!r}; expected one of {names}.")
    get_config = importlib.import_module(f"configs.{name}").get_config
    if colon and not inspect.signature(get_config).parameters:
        raise SystemExit(f"error: found variant {own!r} of recipe {name!r}, which has none.")
    return get_config(own) if colon else get_config()


def variant(found, known):
    """Return what a recipe knows of its variant."""
    if found not in known:
        raise SystemExit(f"error: found variant {found!r}; expected one of {list(known)}.")
    return known[found]


def ranks(usual):
    """Return an entry that takes a share with a point, a whole number, or ranks by convolution."""
    return config_dict.FieldReference(usual, field_type=object)
