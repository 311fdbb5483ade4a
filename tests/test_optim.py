"""Labels, the partitioned optimiser and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import network

from radapt_jax import initial_variables
from radapt_jax.adapters import KINDS
from radapt_jax.train import optim
from radapt_jax.train.options import TrainOptions
from radapt_jax.utils import trees

NONE = KINDS["none"]
DECAY = {"filters": None, "adapters": 1e-2, "norms": 1e-3, "head": 0.0}


def weights(kind):
    variables = initial_variables(network(kind, width=0.125), 4, seed=0)
    return {key: variables[key] for key in ("params", "adapters")}


@pytest.mark.parametrize("kind", ["none", "series", "parallel"])
def test_every_variable_has_exactly_one_label(kind):
    tree = weights(kind)
    named = trees.flatten(optim.labels(tree, DECAY, KINDS[kind]))
    assert named.keys() == trees.flatten(tree).keys()
    for path, name in named.items():
        assert (name == optim.FROZEN) == path.startswith("params/")
        assert (name == "head") == path.startswith("adapters/head/")
        assert (name == "adapters") == path.endswith("adapter/kernel")


@pytest.mark.parametrize("path", ["adapters/mystery/kernel", "adapters/kernel", "other/norm/scale"])
def test_a_variable_without_label_is_an_error(path):
    with pytest.raises(ValueError, match="no label"):
        optim.label(path, KINDS["parallel"], [path])


def test_a_norm_called_shortcut_is_a_norm():
    """In a network of one's own; a shortcut that is a convolution is trained as adapters are."""
    norm = ["adapters/block/shortcut/scale", "adapters/block/shortcut/bias"]
    conv = ["adapters/block/shortcut/kernel", "adapters/block/shortcut/bias"]
    for paths, expected in (norm, "norms"), (norm[1:], "norms"), (conv, "adapters"):
        assert {optim.label(path, KINDS["parallel"], paths) for path in paths} == {expected}


def test_decay_by_label_and_frozen_untouched():
    """Without gradients only decay moves weights: lr * decay * weight, by label."""
    tree = jax.tree.map(jnp.asarray, weights("series"))
    labels = optim.labels(tree, DECAY, KINDS["series"])
    optimizer = optim.make_optimizer(labels, DECAY, 0.1)
    zeros = jax.tree.map(jnp.zeros_like, tree)
    updates, _ = optimizer.update(zeros, optimizer.init(tree), tree)
    before, change = trees.flatten(tree), trees.flatten(updates)
    for path, name in trees.flatten(labels).items():
        rate = 0.0 if name == optim.FROZEN else DECAY[name]
        np.testing.assert_allclose(change[path], -0.1 * rate * before[path], rtol=1e-6)


def test_sgd_is_pytorchs():
    """g += decay p; m = 0.9 m + g; p -= lr m."""
    optimizer = optim.sgd(0.1, 0.9, 0.01)
    p, m = 2.0, 0.0
    param = jnp.array(p)
    state = optimizer.init(param)
    for g in (1.0, -0.5, 0.25):
        updates, state = optimizer.update(jnp.array(g), state, param)
        param = optax.apply_updates(param, updates)
        m = 0.9 * m + g + 0.01 * p
        p -= 0.1 * m
        assert float(param) == pytest.approx(p, rel=1e-6)


def test_adam_is_pytorchs_adamw():
    """Decay is apart from the gradient, and the means of g and g² are corrected for their start."""
    optimizer = optim.adam(0.1, 0.9, 0.01)
    p, m, v = 2.0, 0.0, 0.0
    param = jnp.array(p)
    state = optimizer.init(param)
    for step, g in enumerate((1.0, -0.5, 0.25), start=1):
        updates, state = optimizer.update(jnp.array(g), state, param)
        param = optax.apply_updates(param, updates)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        direction = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
        p -= 0.1 * (direction + 0.01 * p)
        assert float(param) == pytest.approx(p, rel=1e-5)


@pytest.mark.parametrize(("name", "copies"), [("sgd", 1), ("adam", 2)])
def test_frozen_filters_have_no_optimiser_state(name, copies):
    tree = weights("parallel")
    labels = optim.labels(tree, DECAY, KINDS["parallel"])
    optimizer = optim.make_optimizer(labels, DECAY, 0.1, name=name)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(tree)))
    assert sizes < copies * trees.count(tree["adapters"]) + 10


def test_adapters_have_an_optimiser_of_their_own():
    """Scores of masks go by Adam's rate in the first step; norms and head by SGD's gradient."""
    options = TrainOptions(adapter_optimizer="adam", adapter_rate=1e-4, decay=DECAY)
    tree = jax.tree.map(jnp.asarray, weights("affine_mask"))
    labels = optim.labels(tree, options.decay, KINDS["affine_mask"])
    rule = options.adapter_rule(100)
    no_decay = {label: rate and 0.0 for label, rate in options.decay.items()}
    optimizer = optim.make_optimizer(labels, no_decay, options.rate(100), adapters=rule)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0), tree)
    updates, _ = optimizer.update(gradients, optimizer.init(tree), tree)
    kinds, changes = {}, trees.flatten(updates)
    for path, change in changes.items():
        kinds.setdefault(optim.label(path, KINDS["affine_mask"], changes), []).append(change)
    moved = {"filters": 0.0, "adapters": -1e-4, "norms": -0.3, "head": -0.3}
    assert kinds.keys() == moved.keys()
    for label, changes in kinds.items():
        for change in changes:
            np.testing.assert_allclose(change, moved[label], rtol=1e-5)
    assert TrainOptions().adapter_rule(100) is None
    assert TrainOptions(adapter_rate=0.5).adapter_rule(100).optimizer == "sgd"


def test_adapters_have_none_where_filters_are_trained():
    with pytest.raises(ValueError, match=r"adapter_optimizer 'adam'.*filters are trained"):
        TrainOptions(adapter_optimizer="adam", decay={"filters": 5e-4})


def test_schedules():
    steps = optim.make_schedule("steps", 0.1, 120, drop_at=(80 / 120, 100 / 120))
    found = [float(steps(step)) for step in (0, 79, 80, 99, 100, 119)]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)
    cosine = optim.make_schedule("cosine", 0.1, 100, warmup=0.1)
    found = [float(cosine(step)) for step in (0, 5, 10, 55, 100)]
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.05, 0.0], atol=1e-7)
    warm = optim.make_schedule("steps", 0.1, 100, drop_at=(0.5,), warmup=0.1)
    found = [float(warm(step)) for step in (5, 49, 50)]
    np.testing.assert_allclose(found, [0.05, 0.1, 0.01], rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_drops_on_one_step_are_all_taken(warmup):
    """80 and 100 of 120 epochs fall on step 3 of a run of 4, once it is rounded; so do doubles."""
    for total, drop_at in ((4, (2 / 3, 5 / 6)), (8, (0.5, 0.5))):
        rate = optim.make_schedule("steps", 0.1, total, drop_at=drop_at, warmup=warmup)
        drop = round(drop_at[0] * total)
        found = [float(rate(step)) for step in (drop - 1, drop, total)]
        np.testing.assert_allclose(found, [0.1, 0.001, 0.001], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.make_schedule("linear", 0.1, 10), "'linear'"),
        (lambda: optim.make_schedule("steps", -0.1, 10), "learning rate -0.1"),
        (lambda: optim.make_schedule("steps", 0.1, 10, drop_at=(80,)), "fractions"),
        (lambda: optim.labels(weights("none"), {"filters": 0.0}, NONE), "adapters"),
        (lambda: optim.labels(weights("none"), dict.fromkeys(DECAY), NONE), "frozen"),
        (lambda: optim.labels(weights("none"), {**DECAY, "head": -1.0}, NONE), "head -1.0"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
