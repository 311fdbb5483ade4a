"""Derivatives of a network at evaluation: forward mode, reverse mode and one through the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import spec_of, whole

from radapt_jax import ResNet26, initial_variables
from radapt_jax.adapters.registry import KINDS
from radapt_jax.models import spec as models_spec
from radapt_jax.nn import losses


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Float64, and stages of one block: every layer at both strides, and fast to compile."""
    monkeypatch.setattr(ResNet26, "blocks", 1)
    models_spec._abstract.cache_clear()
    with jax.enable_x64(True):
        yield
    models_spec._abstract.cache_clear()


def network(kind, digits):
    """Logits of two real digits, 8 x 8, and variables at random but near the backbone's."""
    spec = spec_of(kind, 1 / 16)
    stream = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.1 * stream.uniform(size=leaf.shape)),
        initial_variables(spec, 10, seed=0),
    )
    images = jnp.asarray(whole(digits.splits["test"], range(2))[:, ::2, ::2] / 255 - 0.5)
    model = spec.build(10, dtype=jnp.float64)
    return lambda variables, images: model.apply(variables, images, train=False), variables, images


def direction(tree, seed):
    stream = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(stream.normal(size=leaf.shape)), tree)


def inner(a, b):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))


def close(found, expected):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_agrees_with_reverse_mode(kind, digits):
    """With respect to images and to every variable: u · (J v) = (Jᵀ u) · v."""
    logits, *at = network(kind, digits)
    u, v = direction(jnp.zeros((2, 10)), 1), direction(tuple(at), 2)
    _, forward = jax.jit(lambda *at: jax.jvp(logits, at, v))(*at)
    back = jax.jit(lambda *at: jax.vjp(logits, *at)[1](u))(*at)
    for leaf in jax.tree.leaves(back):
        assert np.abs(leaf).max() > 0
    close(inner(back, v), inner(u, forward))
    linear = jax.eval_shape(lambda *at: jax.linearize(logits, *at)[1](*v), *at)
    assert linear.shape == (2, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_over_reverse_is_symmetric(kind, digits):
    """Second derivatives by images and by every variable: u · (H v) = (H u) · v."""
    logits, *at = network(kind, digits)

    def loss(at):
        return losses.cross_entropy(logits(*at), jnp.arange(2)).mean()

    @jax.jit
    def times(v):
        return jax.jvp(jax.grad(loss), (at,), (v,))[1]

    u, v = direction(at, 1), direction(at, 2)
    close(inner(u, times(v)), inner(times(u), v))


def test_jacobian_and_hessian_of_an_image(digits):
    logits, variables, images = network("parallel", digits)
    image = images[0]

    def of_image(image):
        return logits(variables, image[None])[0]

    forward, back = jax.jit(jax.jacfwd(of_image))(image), jax.jit(jax.jacrev(of_image))(image)
    close(forward, back)
    hessian = jax.jit(jax.hessian(lambda image: jax.nn.logsumexp(of_image(image))))(image)
    hessian = hessian.reshape(image.size, image.size)
    close(hessian, hessian.T)
