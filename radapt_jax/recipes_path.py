"""Where the recipes are, and what `from configs import base` means in one.

A clone has them in configs/, beside this package; a wheel puts the same files into
radapt_jax/recipes/. Recipes import one another as `configs`, which is no package that an
installation should claim, so the name is given to them when a recipe is about to be loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = "configs"  # as recipes import it
BASE = "base.py"  # every recipe starts from it


def shipped() -> Path:
    """Return the folder of the recipes that came with this package."""
    package = Path(__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / PACKAGE


def names() -> dict[str, Path]:
    """Return the files of the recipes that came with this package; "decathlon/linear" is a name."""
    folder = shipped()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("[!_]*.py"))
        if path.name != BASE
    }


def find(recipe: str) -> Path:
    """Return the file of a recipe that is named by a bare name or by a path."""
    return names().get(recipe, Path(recipe))


def make_importable(recipe: Path) -> None:
    """Let `configs` be what a recipe expects: the folder it is in, or the recipes that ship.

    A recipe that ships gets those it came with. For any other, a package `configs` that Python
    finds by itself is left alone, such as the one beside a clone's train.py.
    """
    if PACKAGE in sys.modules:
        return
    above = recipe.absolute().parents
    if shipped() in above:
        _register(shipped())
    elif not _found_by_python():
        _register(next(filter(_is_package, above), shipped()))


def _found_by_python() -> bool:
    """Return whether there is a package of that name with a base to start from."""
    spec = importlib.util.find_spec(PACKAGE)
    places = (spec and spec.submodule_search_locations) or ()
    return any((Path(place) / BASE).is_file() for place in places)


def _is_package(folder: Path) -> bool:
    parts = ("__init__.py", BASE)
    return folder.name == PACKAGE and all((folder / part).is_file() for part in parts)


def _register(folder: Path) -> None:
    """Import a folder as the package `configs`."""
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACKAGE])
