"""mixup: what images become, what the loss becomes, and where it cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import network
from test_end_to_end import small
from test_steps import ADAPT, BATCH, train

from radapt_jax import TrainOptions
from radapt_jax.data import augment, batches
from radapt_jax.data.mixing import mix
from radapt_jax.data.pixels import HostPixels
from radapt_jax.experiment.config import read
from radapt_jax.nn.losses import cross_entropy


def test_what_is_mixed():
    """Images and labels with the next ones, by shares of a Beta distribution, the larger first."""
    images, labels = jax.random.normal(jax.random.key(0), (4000, 2, 2, 3)), jnp.arange(4000)
    mixed, of = mix(images, labels, 0.4, jax.random.key(1))
    np.testing.assert_array_equal(of.others, np.roll(labels, -1))
    ours = np.asarray(of.share)[:, None, None, None]
    expected = ours * np.asarray(images) + (1 - ours) * np.roll(images, -1, 0)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-6)
    assert of.share.min() >= 0.5
    drawn = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    assert of.share.mean() == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.01)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_loss_of_mixed_images(devices, digits):
    """That of both labels, by their shares; every device mixes its own images, in its own way."""
    spec, seed = network("parallel", width=0.125), 5
    start, end, (loss,) = train(digits, spec, ADAPT, devices, steps=1, seed=seed, mixup=0.4)
    pixels = HostPixels(digits.splits["train"], digits.domain.size)
    batch = batches.train_batch(pixels, digits.domain, BATCH, 0, 0, devices)
    model, expected = spec.build(10), []
    for device in range(devices):
        own = {name: jnp.asarray(rows[device]) for name, rows in batch.items()}
        images = augment.network_input(own, digits.domain.mean, digits.domain.std)
        key = jax.random.fold_in(jax.random.key(seed), 0)
        images, of = mix(images, own["label"], 0.4, key, device)
        logits, _ = model.apply(start, images, train=True, mutable=["batch_stats"])
        first, other = (cross_entropy(logits, it) for it in (own["label"], of.others))
        expected.append(float((of.share * first + (1 - of.share) * other).mean()))
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)
    plain = train(digits, spec, ADAPT, devices, steps=1, seed=seed)
    assert plain[2][0] != pytest.approx(loss, rel=1e-3)
    moved = np.abs(end["adapters"]["head"]["kernel"] - plain[1]["adapters"]["head"]["kernel"])
    assert moved.max() > 1e-4


def test_where_it_cannot_be(cache_dir, tmp_path):
    with pytest.raises(ValueError, match=r"mixup -1; expected a number in \[0, inf\)"):
        TrainOptions(mixup=-1)
    with pytest.raises(ValueError, match=r"found views 4 and mixup 0\.2"):
        TrainOptions(views=4, mixup=0.2, decay={"adapters": None, "norms": None})
    teachers = {"distill.teachers": str(tmp_path), "init_from": str(tmp_path)}
    with pytest.raises(ValueError, match=r"config\.train\.mixup 0\.2 in a run that distills"):
        read(small("distill", cache_dir, **teachers, **{"train.mixup": 0.2}), 1)
