"""What the study compares: each part is a recipe with entries of its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trained_runs import DOMAINS

WHOLE = ("gtsrb", "omniglot", "chars74k")  # which the recipe does not crop at random
CROPS = {f"options.{name}.crop": "random" for name in WHOLE}
ONE_DECAY = {f"options.{name}.adapter_decay": 5e-4 for name in DOMAINS}
ORIGINAL = ("dtd10", "vgg_flowers", "omniglot", "daimler_ped", "cifar100", "gtsrb", "rsscn7")
CROPPED = tuple(name for name in ORIGINAL if name in WHOLE)  # of these, what crops are worth
BRIEF = "8 epochs"  # of pre-training, as the original's code had
SHARES = (0.1, 0.25, 0.5)  # of the training images; all of them is the method itself


@dataclasses.dataclass(frozen=True)
class Part:
    """A way to train the nine domains.

    Args:
      recipe: of configs/decathlon_like.py.
      entries: of the config, where they are not the recipe's.
      source: the backbone, one of `run.PRETRAINING`.
      after: the part whose domains, of the same seed, it goes on with; "": it starts from the
        backbone.
      taught_by: the part whose domains, of the same seed, its own learn from; "": none.
    """

    recipe: str
    entries: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = "backbone"
    after: str = ""
    taught_by: str = ""


def _shares(name):
    """Return the parts of a recipe on shares of the training images, by name."""
    return {
        f"{name}, {100 * share:g} % of the images": Part(name, {"train_fraction": share})
        for share in SHARES
    }


def _brief(recipe, **entries):
    """Return a recipe on a backbone, and on the domains, that the original's code was run with."""
    entries = {"domains": ",".join(ORIGINAL), "method": "brief", **entries}
    return Part(recipe, entries, source=f"backbone of {BRIEF}")


def _placed(what, where):
    """Return parallel adapters in some places alone."""
    return Part("parallel", {f"adapter.{what}": where, "method": f"parallel_{where}"})


def _smaller(kind, bits=32, share=0.5):
    """Return the domains of parallel adapters made smaller, and fine-tuned with new norms."""
    entries = {"compress.kind": kind, "compress.bits": bits, "compress.share": share}
    return Part("compress", {**entries, "method": "smaller"}, after="parallel")


METHODS = {
    "linear": Part("linear"),
    "norm": Part("norm"),
    "finetune": Part("finetune"),
    "finetune, rate 0.01": Part("finetune", {"optim.learning_rate": 0.01}),
    "scratch": Part("scratch"),
    "series": Part("series", source="backbone with series adapters"),
    "series off the shelf": Part("series_off_the_shelf"),
    "parallel": Part("parallel"),
    "parallel, early": _placed("stages", "early"),
    "parallel, mid": _placed("stages", "mid"),
    "parallel, late": _placed("stages", "late"),
    "parallel, first of a block": _placed("convs", "first"),
    "parallel, He-normal start": Part("parallel", {"adapter.options": {"init": "he_normal"}}),
    "parallel, one decay": Part("parallel", ONE_DECAY),
    "parallel, our recipe": Part("parallel:ours"),
    "finetune, crops everywhere": Part("finetune", CROPS),
    "parallel, taught by finetune": Part("taught", taught_by="finetune"),
    "modulation": Part("modulation"),
    "modulation, factored": Part("modulation:factored"),
    "controller": Part("controller"),
    "mask": Part("mask"),
    "parallel, fine-tuned": _smaller("parallel"),
    "parallel, int8": _smaller("parallel", 8),
    "parallel, int4": _smaller("parallel", 4),
    "joint, K = C/2": _smaller("joint"),
    "joint, K = C/4": _smaller("joint", share=0.25),
    "by domain, K = C/2": _smaller("low_rank"),
    "by domain, K = C/4": _smaller("low_rank", share=0.25),
    "joint, K = C/2, int4": _smaller("joint", 4),
    **_shares("linear"),
    **_shares("norm"),
    **_shares("finetune"),
    **_shares("parallel"),
    **{f"{it}, {BRIEF}": _brief(it) for it in ("linear", "norm", "finetune", "parallel")},
    **{
        f"{it}, {BRIEF}, crops": _brief(it, **CROPS, domains=",".join(CROPPED))
        for it in ("linear", "norm", "finetune", "parallel")
    },
    f"parallel, He-normal start, {BRIEF}": _brief(
        "parallel", **{"adapter.options": {"init": "he_normal"}}
    ),
}
