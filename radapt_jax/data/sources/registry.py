"""Sources of images by name; a source that is added here is known everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from radapt_jax.data.sources.decathlon import open_decathlon
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.data.sources.folder import open_folder
from radapt_jax.data.sources.source import Source
from radapt_jax.data.sources.tfds import open_tfds


class Place(Protocol):
    """Where a domain's images are: its name, a folder, and their name there if it differs."""

    @property
    def name(self) -> str: ...
    @property
    def dir(self) -> str: ...
    @property
    def dataset(self) -> str: ...


SOURCES: dict[str, Callable[[Place], Source]] = {
    "embedded": lambda place: open_embedded(place.dataset or place.name),
    "folder": lambda place: open_folder(place.dataset or place.name, place.dir),
    "tfds": lambda place: open_tfds(place.name, place.dir, dataset=place.dataset or None),
    "decathlon": lambda place: open_decathlon(place.dataset or place.name, place.dir),
}
