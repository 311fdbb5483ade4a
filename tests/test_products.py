"""The product over pixels: its value, and what it leaves of its operands."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radapt_jax.nn.conv import convolve
from radapt_jax.nn.products import over_pixels


def test_it_is_the_sum_over_pixels():
    stream = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, gradient = (jnp.asarray(stream.normal(size=(3, 4, 5, it))) for it in (6, 7))
        expected = np.einsum("bhwc,bhwd->cd", x, gradient)
        for run in (over_pixels, jax.jit(over_pixels)):
            np.testing.assert_allclose(run(x, gradient), expected, atol=1e-12)
        many = jax.vmap(over_pixels)(jnp.stack([x, 2 * x]), jnp.stack([gradient, gradient]))
        np.testing.assert_allclose(many, [expected, 2 * expected], atol=1e-12)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs")
def test_an_activation_is_written_once():
    """What a layer reads in the forward pass is the array that its adapter's gradient reads."""

    def loss(x, kernel, alpha):
        return jnp.square(convolve(jnp.maximum(2 * x, 1), kernel, 1, alpha)).sum()

    at = jnp.ones((8, 6, 6, 16)), jnp.ones((3, 3, 16, 16)), jnp.ones((16, 16))
    text = jax.jit(jax.grad(loss, (0, 2))).lower(*at).compile().as_text()
    written = re.findall(r"%(\w*maximum\w*fusion\S*) = f32\[(\S*?)\]", text)
    assert [shape for _, shape in written] == ["8,6,6,16"]
