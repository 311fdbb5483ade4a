"""Filters of any shape, against XLA's own convolution and JAX's own derivatives, in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radapt_jax.adapters import KINDS, AdaptedConv, Runtime, make_options
from radapt_jax.adapters.base import Trained
from radapt_jax.nn.filters import Filter, grouped_product, with_alpha, without_groups
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.norm import NormRule
from radapt_jax.utils import trees

CHANNELS = 6
# Size of the filter, geometry, sides of the image.
CASES = {
    "1x1": (1, Geometry(), (5, 4)),
    "1x1, stride 2": (1, Geometry(2), (7, 8)),
    "7x7, stride 2": (7, Geometry(2), (13, 16)),
    "3x3, stride 2, odd": (3, Geometry(2), (7, 9)),
    "5x5": (5, Geometry(), (6, 7)),
    "same, stride 2, even": (3, Geometry(2, "same"), (8, 6)),
    "same, stride 2, odd": (3, Geometry(2, "same"), (7, 5)),
    "same, 5x5, stride 2": (5, Geometry(2, "same"), (8, 7)),
    "valid, 4x4, stride 4": (4, Geometry(4, "valid"), (8, 14)),
    "same, 2x2": (2, Geometry(1, "same"), (6, 5)),
    "same, 2x2, one pixel": (2, Geometry(1, "same"), (1, 2)),
    "same, 2x2, stride 2, odd": (2, Geometry(2, "same"), (7, 5)),
    "2x2, padded by 1": (2, Geometry(1, 1), (6, 5)),
    "dilated": (3, Geometry(1, "half", dilation=2), (7, 8)),
    "padded by 0": (3, Geometry(1, 0), (7, 8)),
    "groups": (3, Geometry(1, groups=2), (6, 5)),
    "1x1, groups": (1, Geometry(2, groups=3), (6, 5)),
    "depthwise": (3, Geometry(1, groups=CHANNELS), (6, 5)),
    "depthwise, stride 2": (5, Geometry(2, "same", groups=CHANNELS), (8, 7)),
    "depthwise, valid, stride 2": (3, Geometry(2, "valid", groups=CHANNELS), (8, 7)),
    "depthwise, dilated": (3, Geometry(1, "same", 2, CHANNELS), (8, 7)),
}


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def problem(name):
    size, geometry, sides = CASES[name]
    stream = np.random.default_rng(0)
    x = stream.normal(size=(2, *sides, CHANNELS))
    kernel = stream.normal(size=(size, size, CHANNELS // geometry.groups, CHANNELS))
    alpha, bias = stream.normal(size=kernel.shape[2:]), stream.normal(size=CHANNELS)
    return *map(jnp.asarray, (x, kernel, alpha, bias)), geometry


def plain(x, kernel, geometry):
    """XLA's convolution, with its own padding where it has a name for it."""
    size, padding = kernel.shape[0], geometry.padding
    pad = {"half": ((size - 1) * geometry.dilation + 1) // 2}.get(padding, padding)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (geometry.stride,) * 2,
        padding.upper() if padding in ("same", "valid") else ((pad, pad), (pad, pad)),
        rhs_dilation=(geometry.dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_exact(name):
    x, kernel, alpha, bias, geometry = problem(name)

    def ours(x, kernel, alpha, bias):
        return Filter(kernel, bias, geometry)(x, train=True, alpha=alpha)

    def theirs(x, kernel, alpha, bias):
        return plain(x, with_alpha(kernel, alpha), geometry) + bias

    given = (x, kernel, alpha, bias)
    values, pull = jax.vjp(ours, *given)
    expected, their_pull = jax.vjp(theirs, *given)
    chex.assert_trees_all_close(values, expected, atol=1e-12)
    gradient = jnp.cos(values)
    chex.assert_trees_all_close(pull(gradient), their_pull(gradient), atol=1e-11)
    evaluated = Filter(kernel, bias, geometry)(x, train=False, alpha=alpha)
    chex.assert_trees_all_close(evaluated, expected, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_centre_tap_reads_those_pixels(name):
    """A 1x1 filter at the centre tap alone is a product with what `centre` returns."""
    x, kernel, alpha, _, geometry = problem(name)
    read = Filter(kernel, None, geometry).centre(x)
    expected = plain(x, with_alpha(jnp.zeros_like(kernel), alpha), geometry)
    chex.assert_trees_all_close(grouped_product(read, alpha, geometry.groups), expected, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].foldable])
@pytest.mark.parametrize(
    "name", ["1x1, stride 2", "7x7, stride 2", "groups", "depthwise, stride 2"]
)
def test_every_kind_folds_on_it(name, kind):
    """With a bias and statistics at random; training folds the filter, and must agree as well."""
    x, kernel, _, bias, geometry = problem(name)
    rule = NormRule(epsilon=1e-3)
    module = AdaptedConv(
        CHANNELS,
        kernel.shape[0],
        geometry,
        use_bias=True,
        adapter=make_options(kind),
        norm=rule,
        runtime=Runtime(jnp.float64),
    )
    stream = np.random.default_rng(1)
    found = trees.flatten(module.init(jax.random.key(0), x, train=False))
    leaves = {path: jnp.asarray(stream.uniform(0.1, 1, leaf.shape)) for path, leaf in found.items()}
    leaves |= {"params/kernel": kernel, "params/bias": bias}
    variables = trees.unflatten(leaves)
    y = module.apply(variables, x, train=False)
    own = {
        path.split("/adapter/")[1]: leaf
        for path, leaf in leaves.items()
        if "/adapter/" in path and not path.startswith("batch_stats")
    }
    stats = {
        path.split("/adapter/")[1]: leaf
        for path, leaf in leaves.items()
        if path.startswith("batch_stats")
    }
    f = Filter(kernel, bias, geometry)
    folded, constant = KINDS[kind].fold(f, Trained(own, stats, make_options(kind), rule, ""))
    again = f._replace(kernel=folded)(x, train=False)
    chex.assert_trees_all_close(again + (0 if constant is None else constant), y, atol=1e-9)
    if not stats:
        trained = module.apply(variables, x, train=True)
        chex.assert_trees_all_close(trained, y, atol=1e-9)


@pytest.mark.parametrize("kind", [it for it in KINDS if "dropout" in KINDS[it].Options.checks])
@pytest.mark.parametrize("name", ["5x5", "groups", "depthwise"])
def test_channels_are_dropped_in_training(name, kind):
    """Of what the adapter adds: an adapter of zeros still gives the filter's own output."""
    x, kernel, _, _, geometry = problem(name)

    def trained(init):
        chosen = {"dropout": (0.5, 0.5), "init": init}
        module = AdaptedConv(
            CHANNELS,
            kernel.shape[0],
            geometry,
            adapter=make_options(kind, **chosen),
            runtime=Runtime(jnp.float64),
        )
        variables = module.init(jax.random.key(0), x, train=False)
        variables = {**variables, "params": {**variables["params"], "kernel": kernel}}
        rngs, no = {"dropout": jax.random.key(1)}, {"mutable": ["batch_stats"]}
        seen = module.apply(variables, x, train=True, rngs=rngs, **no)[0]
        return seen, module.apply(variables, x, train=False)

    assert not np.allclose(*trained("he_normal"), atol=1e-3)
    np.testing.assert_allclose(trained("zeros")[0], plain(x, kernel, geometry), atol=1e-9)


@pytest.mark.parametrize("name", ["7x7, stride 2", "depthwise, stride 2"])
def test_a_frozen_filter_has_no_gradient(name):
    """What is not asked for is not computed."""
    x, kernel, alpha, _, geometry = problem(name)

    def cost(wanted):
        def loss(x, kernel, alpha):
            return jnp.square(Filter(kernel, None, geometry)(x, train=True, alpha=alpha)).sum()

        compiled = jax.jit(jax.grad(loss, wanted)).lower(x, kernel, alpha).compile()
        return compiled.cost_analysis()["flops"]

    assert cost((0, 2)) < cost((0, 1, 2))
    assert cost((2,)) < cost((0, 2))


def test_without_groups_it_computes_the_same():
    x, kernel, _, _, geometry = problem("groups")
    found = without_groups(kernel, geometry.groups)
    assert found.shape[2] == x.shape[-1]
    plainly = geometry._replace(groups=1).apply(x, found)
    chex.assert_trees_all_close(plainly, geometry.apply(x, kernel), atol=1e-12)
