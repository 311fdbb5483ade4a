"""Labels on variables, the optimiser that follows from them, and learning-rate schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from radapt_jax.adapters.base import Adapter, is_adapters, leaf_of
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees
from radapt_jax.utils.checks import check, check_all, number, optional

LABELS = ("filters", "adapters", "norms", "head")
FROZEN = "frozen"
BIASES = "biases"  # of convolutions, and what else of adapters is trained without decay
RATE = number("(0, inf)")
DROP = number("(0, 1]")  # a factor
DECAY = optional(number("[0, inf)"))


def label(path: str, kind: type[Adapter], paths: Collection[str]) -> str:
    """Return the label of a variable from its path, collection first.

    An adapter's variables have the labels that its kind says. Of the others, `params/...` is
    "filters", `adapters/head/...` is "head", scale and bias of a norm are "norms", and a shortcut
    that is the domain's own, a convolution, is trained as "adapters".

    Args:
      path: of the variable.
      kind: of the adapters.
      paths: of all variables.

    Raises:
      ValueError: the path has no label.
    """
    collection, *modules, leaf = path.split("/")
    if is_adapters(path):
        known = kind.leaves.get(leaf_of(path))
        if known is not None:
            return known.label
    elif collection == "params":
        return "filters"
    elif collection == "adapters" and modules:
        if modules[0] == "head":
            return "head"
        beside = f"{path.removesuffix(leaf)}kernel"  # which a norm called shortcut does not have
        if modules[-1] == "shortcut" and beside in paths:
            return "adapters"
        if leaf in ("scale", "bias"):
            return "norms"
    raise ValueError(
        f"found variable {path!r}, which has no label; expected params/..., or adapters/... under "
        "a norm, a shortcut, the head, or an adapter whose kind lists it among its leaves."
    )


def labels_of(spec: ModelSpec) -> frozenset[str]:
    """Return the labels that a network's variables have."""
    variables = spec.abstract(1)
    weights = {key: variables[key] for key in ("params", "adapters")}
    paths = trees.flatten(weights)
    return frozenset(label(path, spec.kind, paths) for path in paths)


def labels(
    variables: trees.Tree,
    decay: Mapping[str, float | None],
    kind: type[Adapter],
    of_leaves: Mapping[str, float | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """Label every trainable-or-frozen variable: one of LABELS, or "frozen" where decay is None.

    Biases of filters and adapters that are trained are "biases", which have no decay. Variables of
    adapters with a decay of their own have a label of their own; see `decays_of`.

    Args:
      variables: `{"params": ..., "adapters": ...}`.
      decay: weight decay by label; None freezes. Every label must be there.
      kind: of the adapters.
      of_leaves: weight decay of some of the kind's variables, by name; None freezes.

    Raises:
      ValueError: a label is missing or unknown, or nothing would be trained.
    """
    if set(decay) != set(LABELS):
        raise ValueError(f"found decays for {sorted(decay)}; expected {sorted(LABELS)}.")
    check_all(decay, dict.fromkeys(LABELS, DECAY), "weight decay: ")
    paths = trees.flatten(variables)
    named = {path: label(path, kind, paths) for path in paths}
    tree = {
        path: _treated(path, name, decay[name], kind, of_leaves) for path, name in named.items()
    }
    if set(tree.values()) == {FROZEN}:
        raise ValueError("every variable is frozen; give at least one label a decay (0 will do).")
    return trees.unflatten(tree)


def _treated(
    path: str,
    name: str,
    decay: float | None,
    kind: type[Adapter],
    of_leaves: Mapping[str, float | None],
) -> str:
    """Return how a variable with this label and decay is trained."""
    leaf = leaf_of(path)
    if leaf in of_leaves:
        return FROZEN if of_leaves[leaf] is None else _own_label(leaf)
    if decay is None:
        return FROZEN
    plain = path.endswith("/bias") and name in ("filters", "adapters")
    return BIASES if plain or (leaf in kind.leaves and not kind.leaves[leaf].decays) else name


def _own_label(leaf: str) -> str:
    return f"adapters/{leaf}"


def decays_of(
    decay: Mapping[str, float | None], of_leaves: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Return weight decay by label, with the labels of variables that have one of their own."""
    return {**decay, **{_own_label(leaf): rate for leaf, rate in of_leaves.items()}}


def sgd(
    learning_rate: optax.ScalarOrSchedule, momentum: float, decay: float
) -> optax.GradientTransformation:
    """SGD with momentum and coupled decay, as PyTorch's: g += decay p; m = mu m + g; p -= lr m."""
    return optax.chain(
        optax.add_decayed_weights(decay),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


def adam(
    learning_rate: optax.ScalarOrSchedule, momentum: float, decay: float
) -> optax.GradientTransformation:
    """Adam with decoupled decay: p -= lr (m / (sqrt(v) + 1e-8) + decay p).

    m and v are the means of g and g² with weights `momentum` and 0.999, corrected for their start
    (Kingma and Ba 2015, algorithm 1). Decay is apart, so that its strength does not depend on the
    gradients (Loshchilov and Hutter 2019, algorithm 2).
    """
    return optax.chain(
        optax.scale_by_adam(b1=momentum),
        optax.add_decayed_weights(decay),
        optax.scale_by_learning_rate(learning_rate),
    )


OPTIMIZERS = {"sgd": sgd, "adam": adam}


class Average(NamedTuple):
    """The mean of the weights of some steps; how many there were, and the mean."""

    count: Any  # int32 ()
    mean: Any


def averaging(steps: float) -> optax.GradientTransformation:
    """Keep the mean of the weights, and change no update; to be chained last.

    It is the plain mean of all weights up to then, and after `steps` an exponential one, in which a
    step weighs 1 / steps. A rate that falls shows later weights in a better light; see Izmailov et
    al. ("Averaging weights leads to wider optima and better generalization", 2018).
    """

    def init(weights: Any) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, weights))

    def update(updates: Any, state: Average, weights: Any = None) -> tuple[Any, Average]:
        count = state.count + 1
        share = jnp.maximum(1 / count, 1 / steps)
        new = optax.apply_updates(weights, updates)
        mean = jax.tree.map(lambda old, leaf: old + share * (leaf - old), state.mean, new)
        return updates, Average(count, mean)

    return optax.GradientTransformation(init, update)


def averaged(weights: Any, opt_state: Any) -> Any:
    """Return weights, those that are averaged as their means."""

    def is_average(it: Any) -> bool:
        return isinstance(it, Average)

    kept = filter(is_average, jax.tree.leaves(opt_state, is_leaf=is_average))

    def mean_of(leaf: Any, *means: Any) -> Any:
        own = [it for it in means if not isinstance(it, optax.MaskedNode)]
        return own[0] if own else leaf

    return jax.tree.map(mean_of, weights, *(it.mean for it in kept))


class Rule(NamedTuple):
    """How variables are trained: a name in `OPTIMIZERS`, and the learning rate by step."""

    optimizer: str
    learning_rate: optax.ScalarOrSchedule


def make_optimizer(
    label_tree: Any,
    decay: Mapping[str, float | None],
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    *,
    name: str = "sgd",
    adapters: Rule | None = None,
    average: float = 0.0,
) -> optax.GradientTransformation:
    """One `optax.multi_transform`: frozen variables are set to zero, each label has its decay.

    Make one optimiser state per domain: in a shared one, decay moves the domains that are idle.

    Args:
      label_tree: of `labels`.
      decay: weight decay by label; see `decays_of`.
      learning_rate: a number, or by step.
      momentum: of SGD; the first of Adam's two.
      name: in `OPTIMIZERS`.
      adapters: how adapters are trained, where filters are frozen; None: as the rest.
      average: how many steps the mean of the weights is of, at least 1; 0: none is kept.
    """
    rates = {label: rate for label, rate in decay.items() if rate is not None}
    if BIASES in jax.tree.leaves(label_tree):
        rates[BIASES] = 0.0  # see labels
    usual = Rule(name, learning_rate)

    def transform(label: str, rate: float) -> optax.GradientTransformation:
        rule = adapters if adapters is not None and _is_of_adapters(label) else usual
        steps = OPTIMIZERS[rule.optimizer](rule.learning_rate, momentum, rate)
        return optax.chain(steps, averaging(average)) if average else steps

    transforms = {label: transform(label, rate) for label, rate in rates.items()}
    return optax.multi_transform({**transforms, FROZEN: optax.set_to_zero()}, label_tree)


def _is_of_adapters(label: str) -> bool:
    """Tell whether adapters alone have a label, where filters are frozen."""
    return label in ("adapters", BIASES) or label.startswith(_own_label(""))


def make_schedule(
    kind: str,
    learning_rate: float,
    total_steps: int,
    *,
    drop_at: Sequence[float] = (2 / 3, 5 / 6),
    drop_by: float = 0.1,
    warmup: float = 0.0,
) -> optax.Schedule:
    """Learning rate by step.

    Args:
      kind: "steps" (multiplied by `drop_by` at each of `drop_at`) or "cosine" (down to 0).
      learning_rate: the highest rate.
      total_steps: length of the run.
      drop_at: fractions of the run; the papers drop at 80 and 100 of 120 epochs. Those that fall
        on one step, in a short run, all drop there.
      warmup: fraction of the run over which the rate rises linearly from 0.

    Raises:
      ValueError: an unknown kind, fractions or a factor outside [0, 1], or a rate that is not
        positive.
    """
    if not all(0 <= fraction <= 1 for fraction in (*drop_at, warmup)):
        raise ValueError(
            f"found drop_at {drop_at}, warmup {warmup}; expected fractions of the run."
        )
    check("learning rate", learning_rate, RATE)
    check("drop_by", drop_by, DROP)
    warmup_steps = round(warmup * total_steps)
    if kind == "steps":
        at_step = Counter(round(at * total_steps) - warmup_steps for at in drop_at)
        drops = {step: drop_by**count for step, count in at_step.items()}
        main = optax.piecewise_constant_schedule(learning_rate, drops)
    elif kind == "cosine":
        main = optax.cosine_decay_schedule(learning_rate, max(total_steps - warmup_steps, 1))
    else:
        raise ValueError(f"found schedule {kind!r}; expected 'steps' or 'cosine'.")
    if not warmup_steps:
        return main
    rise = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([rise, main], [warmup_steps])
