"""x + norm(x) α as one product: values, statistics and gradients against the plain computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radapt_jax.nn.normed_product import normed_product

EPSILON = 1e-5


def plain(x, scale, bias, alpha):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return x + ((x - mean) / jnp.sqrt(var + EPSILON) * scale + bias) @ alpha


def arguments(channels=5, dtype=np.float64):
    stream = np.random.default_rng(0)
    shapes = ((4, 6, 3, channels), (channels,), (channels,), (channels, channels))
    x, scale, bias, alpha = (stream.normal(size=shape) for shape in shapes)
    return [np.asarray(it, dtype) for it in (3 + 2 * x, 1 + 0.3 * scale, bias, 0.5 * alpha)]


def test_values_statistics_and_gradients():
    with jax.enable_x64(True):
        given = arguments()
        weight = np.random.default_rng(1).normal(size=given[0].shape)
        y, mean, var = normed_product(*given, None, EPSILON)
        np.testing.assert_allclose(y, plain(*given), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(mean, given[0].mean((0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(var, given[0].var((0, 1, 2)), rtol=1e-12)
        ours, theirs = (
            jax.grad(lambda *given, of=of: (weight * of(*given)).sum(), (0, 1, 2, 3))(*given)
            for of in (lambda *given: normed_product(*given, None, EPSILON)[0], plain)
        )
        for found, expected in zip(ours, theirs, strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, atol=1e-12 * scale)


@pytest.mark.parametrize("devices", [2, 4])
def test_statistics_of_all_devices(devices):
    """Each device has a part of the batch; together they compute what one does with all of it."""
    with jax.enable_x64(True):
        x, *rest = arguments()
        parts = x.reshape(devices, -1, *x.shape[1:])
        weight = np.random.default_rng(1).normal(size=x.shape)

        def loss(x, weight, *rest):
            return (weight * normed_product(x, *rest, "devices", EPSILON)[0]).sum()

        gradients = jax.vmap(
            jax.grad(loss, (0, 2, 3, 4)), in_axes=(0, 0, None, None, None), axis_name="devices"
        )(parts, weight.reshape(parts.shape), *rest)
        expected = jax.grad(lambda x, *rest: (weight * plain(x, *rest)).sum(), (0, 1, 2, 3))(
            x, *rest
        )
        found = (gradients[0].reshape(x.shape), *(it.sum(0) for it in gradients[1:]))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12 * np.abs(theirs).max())


def test_float32_keeps_its_digits():
    """Also where the mean is large beside the deviation, as after a ReLU."""
    given = arguments(16, np.float32)
    given[0] += 30
    with jax.enable_x64(True):
        expected = plain(*(np.asarray(it, np.float64) for it in given))
    found = normed_product(*given, None, EPSILON)[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())
