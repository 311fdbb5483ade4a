"""What a recipe's name stands for: a run that is called "parallel" trains parallel adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from radapt_jax.adapters.registry import KINDS
from radapt_jax.compress.which import dense_kinds, targets
from radapt_jax.experiment.settings import Settings
from radapt_jax.family.rounding import OF_ADAPTERS, WHOLE
from radapt_jax.models.backbone import Placement
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.spec import ModelSpec
from radapt_jax.train.optim import LABELS, labels_of

TRAINED, FROZEN = "a number (trained)", "None (frozen)"
TAUGHT, ALONE = "a run (learnt from)", "'' (none)"
STAGES = ResNet26.stages  # of the networks that the papers published
USUAL = ""  # all stages, and the convolutions that usually carry adapters
Meaning = Mapping[str, tuple[Any, ...]]  # by entry of the config: what it may be


def _means(
    kind: str | tuple[str, ...],
    trained: tuple[str, ...],
    *,
    stages: str = USUAL,
    convs: str = USUAL,
    **others: tuple[Any, ...],
) -> Meaning:
    return {
        "start": ("backbone",),
        "compress.kind": ("",),
        "compress.bits": (WHOLE,),
        "distill.on": (False,),
        "teachers": (ALONE,),
        "adapter.kind": (kind,) if isinstance(kind, str) else kind,
        "adapter.stages": (stages,),
        "adapter.convs": (convs,),
        **{f"optim.decay.{it}": (TRAINED if it in trained else FROZEN,) for it in LABELS},
        **others,
    }


PRIVATE = tuple(name for name, kind in KINDS.items() if not kind.shares())
OWN = tuple(label for label in LABELS if label != "filters")  # what a domain brings
# Kinds that a domain has to itself are called by their names.
METHODS: Mapping[str, Meaning] = {
    "scratch": _means("none", LABELS, start=("random",)),
    "finetune": _means("none", LABELS),
    "linear": _means("none", ("head",)),
    "norm": _means("none", ("norms", "head")),
    **{name: _means(name, OWN) for name, it in KINDS.items() if it.leaves and not it.shares()},
    "series": _means("series", OWN, source_adapter=("series", None)),
    "series_off_the_shelf": _means("series", OWN, source_adapter=("none",)),
    **{f"parallel_{stage}": _means("parallel", OWN, stages=stage) for stage in STAGES},
    "parallel_half": _means("parallel", OWN, convs="first"),
    "parallel_wide": _means("parallel", OWN),
    "joint": {
        **_means("joint", OWN),
        "compress.kind": (*targets(), *dense_kinds()),
        "compress.bits": OF_ADAPTERS,
    },
    "join": {
        **_means("joint", OWN),
        "adapter.kind": tuple(name for name, it in KINDS.items() if it.shares()),
    },
    "taught": _means(PRIVATE, OWN, teachers=(TAUGHT,)),
    "distill": {**_means(PRIVATE, LABELS), "distill.on": (True,)},
}


def check(settings: Settings, spec: ModelSpec) -> None:
    """Raise ValueError if a run has a recipe's name and does something else.

    The tables put a run above the published results of its method, so the name must be right.
    Any other name is a label, and free.

    Args:
      settings: of the run.
      spec: its network.
    """
    method = settings.method
    if method not in METHODS:
        return
    facts = _facts(settings, spec)
    wrong = _wrong(facts, METHODS[method])
    if not wrong:
        return
    names = [name for name, meaning in METHODS.items() if not _wrong(facts, meaning)]
    called = names[0] if names else f"my_{method}"
    lines = [
        f"  config.{entry}: found {_shown(facts[entry])}, expected "
        + " or ".join(map(_shown, METHODS[method][entry]))
        for entry in wrong
    ]
    raise ValueError(
        f"method {method!r} is a recipe's name, and this run does something else:\n"
        + "\n".join(lines)
        + f"\nSet that as expected, or call the run what it is: --config.method={called}"
        + (" (the recipe that does this)." if names else " (any name that no recipe has).")
    )


def _wrong(facts: Mapping[str, Any], meaning: Meaning) -> list[str]:
    """Return the entries that are not as a method has them."""
    return [it for it, allowed in meaning.items() if it in facts and facts[it] not in allowed]


def _facts(settings: Settings, spec: ModelSpec) -> dict[str, Any]:
    """Return what a run does, by entry of its config; entries that change nothing are left out."""
    usual = spec.backbone.placed(Placement())
    facts = {
        "start": settings.start,
        "source_adapter": settings.source_adapter,
        "compress.kind": settings.compression.kind,
        "compress.bits": settings.options.bits,
        "distill.on": settings.lessons is not None,
        "teachers": TAUGHT if settings.teachers else ALONE,
        "adapter.kind": spec.adapter.kind,
        "adapter.stages": _ordered(spec.placement.stages, usual.stages),
        "adapter.convs": _ordered(spec.placement.convs, usual.convs),
    }
    for name in LABELS:
        frozen = settings.options.decay[name] is None
        facts[f"optim.decay.{name}"] = FROZEN if frozen else TRAINED
    idle: set[str] = set()
    if settings.compression.kind:  # adapters are those of the run that is compressed
        idle = {"adapter.kind", "adapter.stages", "adapter.convs"}
    elif not spec.kind.leaves:
        idle = {"adapter.stages", "adapter.convs"}
        if "adapters" not in labels_of(spec):
            idle.add("optim.decay.adapters")
    elif len(settings.domains) == 1 and settings.start == "random" and not settings.init_from:
        idle = {"adapter.kind"}  # pre-training, with the adapters that its domains will have
    return {entry: found for entry, found in facts.items() if entry not in idle}


def _ordered(placed: Sequence[str] | None, usual: Sequence[str] | None) -> str:
    """Return the names as a config has them, in order; `USUAL` if they are just those."""
    found, order = set(placed or ()), list(usual or ())
    return USUAL if found == set(order) else ",".join(sorted(found, key=[*order, *found].index))


def _shown(found: Any) -> str:
    return found if found in (TRAINED, FROZEN, TAUGHT, ALONE) else repr(found)
