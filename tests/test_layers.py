"""The domain norm against NumPy, and channel dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radapt_jax.nn.layers import ChannelDropout
from radapt_jax.nn.norm import DomainNorm


def norm_variables(channels):
    return {
        "adapters": {"scale": jnp.arange(1.0, channels + 1), "bias": jnp.ones(channels)},
        "batch_stats": {"mean": jnp.zeros(channels), "var": jnp.ones(channels)},
    }


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_norm_is_pytorchs(offset, surface_images):
    """Biased variance to normalise, unbiased to remember, and no loss at a large mean."""
    pixels = surface_images[0][:3, :4, :4].astype(np.float32) + offset
    assert pixels[..., 0].std() > 1
    x = np.stack([pixels[..., 0], 255 - pixels[..., 0] / 2], -1)
    y, changed = DomainNorm().apply(norm_variables(2), x, train=True, mutable=["batch_stats"])
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    expected = (wide - mean) / np.sqrt(var + 1e-5) * [1, 2] + 1
    np.testing.assert_allclose(y, expected, atol=1e-5 if offset == 0 else 1e-2)
    np.testing.assert_allclose(changed["batch_stats"]["mean"], 0.1 * mean, rtol=1e-6)
    unbiased = wide.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(changed["batch_stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-4)


def test_evaluation_uses_running_statistics(surface_images):
    x = surface_images[0][:2].astype(np.float32)
    y = DomainNorm().apply(norm_variables(3), x, train=False)
    np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-5) * [1, 2, 3] + 1, rtol=1e-5)


def test_training_without_mutable_statistics_is_an_error(surface_images):
    x = surface_images[0][:2].astype(np.float32)
    with pytest.raises(Exception, match="batch_stats"):
        DomainNorm().apply(norm_variables(3), x, train=True)


def test_channel_dropout_drops_whole_channels_and_keeps_the_mean():
    x = jnp.ones((200, 2, 2, 50))
    y = ChannelDropout(0.3).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    per_channel = np.asarray(y).reshape(200, 4, 50)
    assert (per_channel == per_channel[:, :1]).all()
    np.testing.assert_allclose(np.unique(per_channel), [0, 1 / 0.7], rtol=1e-6)
    assert per_channel.mean() == pytest.approx(1.0, abs=0.05)
