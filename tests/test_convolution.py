"""The convolution's formulations agree with the plain one, gradients and all."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import process
import pytest
from families import network, whole
from jax import export

from radapt_jax import ModelSpec, initial_variables
from radapt_jax.nn import conv, losses
from radapt_jax.nn.conv import convolve, winograd
from radapt_jax.utils import trees

SHAPES = [(8, 8), (7, 9), (6, 5)]  # odd sides too


@pytest.fixture(autouse=True)
def dropped():
    """Every test compiles large programs, of no use to the next one."""
    yield
    process.drop_programs()


def plain(x, kernel, stride, alpha=None):
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y if alpha is None else y + x[:, ::stride, ::stride] @ alpha


def problem(height, width, stride):
    stream = np.random.default_rng(height * width)
    x = stream.normal(size=(3, height, width, 5))
    kernel, alpha = stream.normal(size=(3, 3, 5, 6)), stream.normal(size=(5, 6))
    gradient = stream.normal(size=(3, -(-height // stride), -(-width // stride), 6))
    return tuple(map(jnp.asarray, (x, kernel, alpha, gradient)))


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "stride"), [(*shape, 1) for shape in SHAPES] + [(8, 8, 2), (6, 10, 2)]
)
def test_values_and_gradients_are_exact(height, width, stride, cpu, monkeypatch):
    """In float64 to 1e-12: input, filter and α gradients, with α and without."""
    for name in ("CHANNELS", "TILES", "IMAGES", "LARGE"):  # with 1, what is for large layers
        monkeypatch.setattr(conv, name, 1 if cpu else 10**9)
    with jax.enable_x64(True):
        x, kernel, alpha, gradient = problem(height, width, stride)
        for filters in ((kernel, alpha), (kernel, None)):
            results = []
            for form in (convolve, plain):
                values, pull = jax.vjp(
                    lambda x, filters, form=form: form(x, filters[0], stride, filters[1]),
                    x,
                    filters,
                )
                results.append((values, pull(gradient)))
            chex.assert_trees_all_close(*results, atol=1e-12)


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize(("height", "width", "stride"), [(7, 9, 1), (6, 10, 2)])
def test_derivatives_at_evaluation_are_those_of_training(height, width, stride, cpu, monkeypatch):
    """Forward mode, reverse mode and one through the other, against the written gradients."""
    for name in ("CHANNELS", "TILES"):
        monkeypatch.setattr(conv, name, 1 if cpu else 10**9)
    with jax.enable_x64(True):
        x, kernel, _, gradient = problem(height, width, stride)
        at = x, kernel
        v = tuple(jnp.cos(leaf) for leaf in at)
        expected, pull = jax.vjp(lambda *at: convolve(*at, stride), *at)

        def forward(*at):
            return conv.forward(*at, stride)

        values, there = jax.jvp(forward, at, v)
        same, linear = jax.linearize(forward, *at)
        back = jax.vjp(forward, *at)[1](gradient)
        chex.assert_trees_all_close((values, same), (expected, expected), atol=1e-12)
        chex.assert_trees_all_close(back, pull(gradient), atol=1e-12)
        chex.assert_trees_all_close(linear(*v), there, atol=1e-12)
        ours = sum(map(jnp.vdot, pull(gradient), v))
        np.testing.assert_allclose(jnp.vdot(gradient, there), ours, rtol=1e-12)
        # Bilinear: along v, the gradient by x changes by that through v's filter, and vice versa.
        _, change = jax.jvp(lambda *at: jax.vjp(forward, *at)[1](gradient), at, v)
        _, swapped = jax.vjp(lambda *at: convolve(*at, stride), *v)
        chex.assert_trees_all_close(change, swapped(gradient), atol=1e-12)


def test_large_batches_are_computed_by_parts(monkeypatch):
    """Of 32 images, and a last one of fewer; values and gradients are those of the whole."""
    calls, direct = [], conv._direct
    monkeypatch.setattr(conv, "LARGE", 70 * 6 * 6 * 5 * 8)

    def counted(x, kernel, stride=1):
        calls.append(len(x))
        return direct(x, kernel, stride)

    with jax.enable_x64(True):
        stream = np.random.default_rng(0)
        x, kernel = stream.normal(size=(70, 6, 6, 5)), stream.normal(size=(3, 3, 5, 5))
        expected = plain(jnp.asarray(x), jnp.asarray(kernel), 1)
        monkeypatch.setattr(conv, "_direct", counted)
        convolve(jnp.asarray(x[:-1]), jnp.asarray(kernel), 1)
        assert calls == [69]  # it is small enough
        y, pull = jax.vjp(lambda *at: convolve(*at, 1), jnp.asarray(x), jnp.asarray(kernel))
        assert {32, 6} <= set(calls)
        np.testing.assert_allclose(y, expected, atol=1e-12)
        _, other = jax.vjp(lambda *at: plain(*at, 1), jnp.asarray(x), jnp.asarray(kernel))
        chex.assert_trees_all_close(pull(y), other(y), atol=1e-9)


def test_a_filter_of_colours_is_exact():
    """With few outputs it gets more of them, of zeros, and gives its own."""
    with jax.enable_x64(True):
        stream = np.random.default_rng(0)
        at = (
            jnp.asarray(stream.normal(size=(2, 8, 6, 3))),
            jnp.asarray(stream.normal(size=(3, 3, 3, 6))),
        )
        (y, pull), (expected, other) = (
            jax.vjp(lambda *at, form=form: form(*at, 1), *at) for form in (convolve, plain)
        )
        np.testing.assert_allclose(y, expected, atol=1e-12)
        chex.assert_trees_all_close(pull(y), other(y), atol=1e-12)
        compiled = jax.jit(lambda *at: convolve(*at, 1)).lower(*at).compile().as_text()
    assert re.search(rf"f64\[2,8,6,{conv.NARROW + 1}\]\S* convolution", compiled)


def test_winograd_loses_few_digits_in_float32():
    stream = np.random.default_rng(0)
    x = stream.normal(size=(2, 8, 8, 128))
    kernel = stream.normal(size=(3, 3, 128, 128))
    with jax.enable_x64(True):
        exact = np.asarray(plain(jnp.asarray(x), jnp.asarray(kernel), 1))
    single = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    scale = np.abs(exact).max()
    ours = np.abs(winograd(*single) - exact).max() / scale
    assert ours < 5e-6
    assert ours < 10 * np.abs(plain(*single, 1) - exact).max() / scale


@pytest.mark.parametrize("kind", ["parallel", "low_rank", "joint"])
def test_folded_training_is_unfolded_training(kind, digits, monkeypatch):
    """Loss and gradients of the whole network, in float64."""
    images = whole(digits.splits["test"], range(4)) / 255 - 0.5

    def run():
        variables = jax.tree.map(jnp.asarray, start)

        def loss(weights):
            logits, _ = spec.build(10).apply(
                {**weights, "batch_stats": variables["batch_stats"]},
                jnp.asarray(images),
                train=True,
                mutable=["batch_stats"],
            )
            return losses.cross_entropy(logits, jnp.arange(4)).mean()

        weights = {name: variables[name] for name in ("params", "adapters")}
        return jax.value_and_grad(loss)(weights)

    with jax.enable_x64(True):
        spec = network(kind, width=0.125, init="he_normal")
        start = jax.tree.map(np.float64, initial_variables(spec, 10, seed=0))
        build = ModelSpec.build
        monkeypatch.setattr(
            ModelSpec, "build", lambda self, classes: build(self, classes, dtype=jnp.float64)
        )
        folded = run()
        monkeypatch.setattr(
            conv, "convolve", lambda x, f, stride, alpha=None: plain(x, f, stride, alpha)
        )
        unfolded = run()
    np.testing.assert_allclose(folded[0], unfolded[0], rtol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(folded[1]), jax.tree.leaves(unfolded[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-11 * max(1, np.abs(theirs).max()))


def test_a_wide_convolution_is_exported_with_an_open_batch():
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, 8, 8, 128), jnp.float32)
    kernel = jnp.ones((3, 3, 128, 128))
    run = jax.jit(lambda x: convolve(x, kernel, 1))
    exported = export.export(run, platforms=("cpu", "cuda"))(images)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(40, 8, 8, 128)), jnp.float32)
    np.testing.assert_allclose(exported.call(x), run(x), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_frozen_filter_has_no_gradient(parts, monkeypatch):
    """What is not asked for is not computed: forward and the input's gradient are left."""
    monkeypatch.setattr(conv, "IMAGES", 3 // parts)
    monkeypatch.setattr(conv, "LARGE", 0)
    x, kernel, alpha, _ = problem(8, 8, 1)

    def loss(x, kernel, alpha):
        return jnp.square(convolve(x, kernel, 1, alpha)).sum()

    def convolutions(wanted):
        compiled = jax.jit(jax.grad(loss, wanted)).lower(x, kernel, alpha).compile()
        return len(re.findall(r" convolution\(", compiled.as_text()))

    assert convolutions((0, 2)) == 2 * parts
    assert convolutions((0, 1, 2)) == 3 * parts
    assert convolutions((2,)) == parts


@pytest.mark.parametrize(
    ("kind", "leaf"),
    [
        ("parallel", "kernel"),
        ("modulation", "kernel"),
        ("modulation_low_rank", "gamma"),
    ],
)
def test_a_small_adapter_is_not_rounded_away_in_bfloat16(digits, kind, leaf):
    """α a thousandth of f: training sees it in bfloat16 too, as evaluation does."""
    spec = network(kind, width=0.125)
    start = initial_variables(spec, 10, seed=0)
    images = jnp.asarray(whole(digits.splits["test"], range(8)) / 255 - 0.5, jnp.float32)

    def logits(size, dtype):
        changes = np.random.default_rng(0)
        leaves = {
            path: it + size * changes.standard_normal(it.shape) / 5
            if path.endswith(f"adapter/{leaf}")
            else it
            for path, it in trees.flatten(start).items()
        }
        model = spec.build(10, dtype=dtype)
        variables = trees.unflatten(leaves)
        return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    exact = logits(1e-3, jnp.float32) - logits(0.0, jnp.float32)
    half = logits(1e-3, jnp.bfloat16) - logits(0.0, jnp.bfloat16)
    assert float(jnp.abs(exact).max()) > 0
    assert float(jnp.abs(half).max()) > 0.3 * float(jnp.abs(exact).max())
