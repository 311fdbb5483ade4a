"""Images changed at random: what each operation does, and that devices do not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
from families import network
from PIL import Image, ImageEnhance, ImageOps
from test_steps import ADAPT, train

from radapt_jax import TrainOptions
from radapt_jax.data import distort
from radapt_jax.data.distort import COLOURS, SHAPES, distorted

ONCE = jnp.array([1, 0])  # one operation, and then nothing
WITH_PILLOW = {
    0: lambda image: ImageEnhance.Brightness(image).enhance(1.45),
    1: lambda image: ImageEnhance.Contrast(image).enhance(1.45),
    2: lambda image: ImageEnhance.Color(image).enhance(1.45),
    4: lambda image: ImageOps.solarize(image, 128),
    6: ImageOps.autocontrast,
}


@pytest.fixture(scope="module")
def photo():
    """Part of a photo of a flower, uint8 (40, 40, 3)."""
    return sklearn.datasets.load_sample_image("flower.jpg")[180:260:2, 200:280:2]


def moved(image, operation, amount):
    where = distort._moved(image, ONCE * (1 + operation), jnp.array([amount, 0.0]))
    return np.asarray(where)


@pytest.mark.parametrize("operation", WITH_PILLOW)
def test_colours_are_those_of_pillow(operation, photo):
    """At half of the highest amount, to the roundings of Pillow's bytes."""
    image = photo
    expected = np.asarray(WITH_PILLOW[operation](Image.fromarray(image)), np.float64)
    found = 255 * COLOURS[operation](jnp.asarray(image / 255, jnp.float32), jnp.float32(0.5))
    assert np.abs(found - image).max() > 5
    np.testing.assert_allclose(found, expected, atol=2.01)


def test_fewer_levels_and_sharper_edges(photo):
    image = jnp.asarray(photo / 255, jnp.float32)
    few = np.unique(COLOURS[5](image, jnp.float32(-1)))
    assert 4 < len(few) <= 16
    np.testing.assert_allclose(np.asarray(image).std() / COLOURS[3](image, -1.0).std(), 1, atol=0.5)
    rough = [np.abs(np.diff(COLOURS[3](image, amount), axis=0)).mean() for amount in (-1, 0, 0.5)]
    assert rough[0] < rough[1] < rough[2]


def test_shapes(photo):
    """A shift by whole pixels, a shear by whole pixels a row, and a turn there and back."""
    image = jnp.asarray(photo / 255, jnp.float32)  # 40 pixels
    np.testing.assert_allclose(moved(image, 3, 1.0)[:28], image[12:], atol=1e-6)
    np.testing.assert_allclose(moved(image, 4, -0.5)[:, 6:], image[:, :-6], atol=1e-6)
    sheared = moved(image, 2, 1.0)  # 0.3 pixels a row: 3 pixels 10 rows below the centre
    np.testing.assert_allclose(sheared[34, :-5], (image[34, 4:-1] + image[34, 5:]) / 2, atol=0.2)
    turned = moved(image, 0, 1.0)
    expected = Image.fromarray(photo).rotate(-30, Image.Resampling.BILINEAR)
    middle = slice(14, 26)
    error = np.abs(255 * turned - np.asarray(expected))[middle, middle].mean()
    other = Image.fromarray(photo).rotate(30, Image.Resampling.BILINEAR)
    assert 3 * error < np.abs(255 * turned - np.asarray(other))[middle, middle].mean()
    for operation in range(len(SHAPES)):
        np.testing.assert_allclose(moved(image, operation, 0.0), image, atol=1e-6)


def test_each_image_is_changed_in_its_own_way(surface_images):
    """By its row and the step's key, whichever images are beside it."""
    images, key = surface_images[0][:16], jax.random.key(3)
    change = jax.jit(distorted, static_argnums=1)
    found = np.asarray(change(images, 0.5, key, jnp.arange(16)))
    assert (found.shape, found.dtype) == (images.shape, np.float32)
    assert found.min() >= 0
    assert found.max() <= 255
    same = change(images[[0] * 16], 0.5, key, jnp.arange(16))
    assert len({np.asarray(it).tobytes() for it in same}) > 12
    np.testing.assert_allclose(change(images[::-1], 0.5, key, jnp.arange(16)[::-1])[::-1], found)
    other = change(images, 0.5, jax.random.key(4), jnp.arange(16))
    assert np.abs(other - found).mean() > 1


def test_a_training_does_not_depend_on_the_devices(digits):
    """Nor on the parts of a batch; and it does depend on the strength."""
    spec = network("parallel", width=0.125)

    def losses(devices, strength):
        return train(digits, spec, ADAPT, devices, steps=2, sync_norm=True, distortion=strength)[2]

    alone = losses(1, 0.8)
    np.testing.assert_allclose(losses(4, 0.8), alone, rtol=1e-4)
    assert losses(1, 0.0)[0] != pytest.approx(alone[0], rel=1e-3)


def test_where_it_cannot_be():
    with pytest.raises(ValueError, match=r"distortion 1\.5; expected a number in \[0, 1\]"):
        TrainOptions(distortion=1.5)
    with pytest.raises(ValueError, match=r"found views 4 and distortion 0\.5"):
        TrainOptions(views=4, distortion=0.5, decay={"adapters": None, "norms": None})
