"""Small domains of real images that ship inside scikit-learn, scikit-image and matplotlib.

They need no download and make a family in minutes:

    pictures   which of 16 photographs a patch is from              (the source domain)
    digits     1,797 handwritten digits, 8x8 pixels                 10 classes
    surfaces   patches of brick, grass and gravel                   3 classes
    faces      100 faces and 100 patches that show none, 25x25      2 classes

Patches for training and test come from disjoint regions of each picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from radapt_jax.data.sources.source import Example, Source

PATCH = 40  # side of a patch in pixels
MIN_CONTRAST = 4.0  # standard deviation in grey levels; patches below it are too empty to tell
TRAIN_SHARE = 0.6  # of a picture's longer side; a gap of one patch follows, then test
Split = list[tuple[int, np.ndarray]]


def open_embedded(name: str) -> Source:
    """Return the images of one of the embedded domains.

    Raises:
      ValueError: there is no such domain.
    """
    if name not in DOMAINS:
        raise ValueError(
            f"found embedded domain {name!r}; expected one of {sorted(DOMAINS)}. For your own "
            "images, train with --config.data.source=folder --config.data.dir=DIR."
        )
    classes, load = DOMAINS[name]

    def reader(split: str) -> Callable[[], Iterable[Example]]:
        return lambda: (
            Example(f"{name} {split} {index}", label, image, name=str(index))
            for index, (label, image) in enumerate(load()[split])
        )

    packages = ("scikit-learn", "scikit-image", "matplotlib")
    key = f"embedded {name} v2 " + " ".join(f"{package} {version(package)}" for package in packages)
    return Source(name, classes, {split: reader(split) for split in ("train", "test")}, key)


PICTURES = (
    "astronaut",
    "cell",
    "chelsea",
    "china",
    "coffee",
    "coins",
    "flower",
    "grace_hopper",
    "hubble_deep_field",
    "ihc",
    "moon",
    "motorcycle_left",
    "page",
    "retina",
    "rocket",
    "text",
)
SURFACES = ("brick", "grass", "gravel")


def picture_of(name: str) -> np.ndarray:
    """Return one of the pictures as uint8 (h, w, 3).

    Raises:
      FileNotFoundError: none of the packages has it.
    """
    import matplotlib
    import skimage.data
    import sklearn.datasets

    folders = (
        Path(skimage.data.__file__).parent,
        Path(sklearn.datasets.__file__).parent / "images",
        Path(matplotlib.get_data_path()) / "sample_data",
    )
    paths = [folder / f"{name}{suffix}" for folder in folders for suffix in (".png", ".jpg")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"picture {name!r} is in none of {[str(folder) for folder in folders]}; reinstall "
            "scikit-image, scikit-learn and matplotlib."
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _patches(names: tuple[str, ...], train: int, test: int, seed: int) -> dict[str, Split]:
    """Cut `train` and `test` patches from each picture, at random places in separate regions."""
    splits: dict[str, Split] = {"train": [], "test": []}
    for label, name in enumerate(names):
        picture = picture_of(name)
        if picture.shape[0] > picture.shape[1]:
            picture = picture.transpose(1, 0, 2)  # so that the longer side is split
        border = int(picture.shape[1] * TRAIN_SHARE)
        regions = {"train": picture[:, :border], "test": picture[:, border + PATCH :]}
        for split, amount in (("train", train), ("test", test)):
            region = regions[split]
            places = np.random.default_rng([seed, label, amount])
            patches = (_random_patch(region, places) for _ in range(20 * amount))
            seen = (patch for patch in patches if patch.std() > MIN_CONTRAST)
            splits[split] += [(label, patch) for patch in itertools.islice(seen, amount)]
    return splits


def _random_patch(region: np.ndarray, places: np.random.Generator) -> np.ndarray:
    top = int(places.integers(0, region.shape[0] - PATCH + 1))
    left = int(places.integers(0, region.shape[1] - PATCH + 1))
    return region[top : top + PATCH, left : left + PATCH]


def _digits() -> dict[str, Split]:
    """Return the first 1,297 images as train, the last 500 as test (they are sorted by writer)."""
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    pairs = list(zip(digits.target.tolist(), images, strict=True))
    return {"train": pairs[:-500], "test": pairs[-500:]}


def _faces() -> dict[str, Split]:
    """Return the first 60 of 100 faces and of 100 other patches as train, the rest as test."""
    import skimage.data

    images = (skimage.data.lfw_subset() * 255).round().astype(np.uint8)
    faces, others = images[:100], images[100:]
    return {
        split: [(0, image) for image in others[part]] + [(1, image) for image in faces[part]]
        for split, part in (("train", slice(0, 60)), ("test", slice(60, 100)))
    }


DOMAINS: Mapping[str, tuple[tuple[str, ...], Callable[[], dict[str, Split]]]] = {
    "pictures": (PICTURES, lambda: _patches(PICTURES, train=250, test=50, seed=0)),
    "surfaces": (SURFACES, lambda: _patches(SURFACES, train=200, test=100, seed=1)),
    "digits": (tuple("0123456789"), _digits),
    "faces": (("no face", "face"), _faces),
}
