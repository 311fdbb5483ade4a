"""Reading a command line: a mistake is answered in a line, with the closest that exists."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from radapt_jax import recipes_path

RECIPES = Path("configs")  # of a clone, where its commands are started
LIKE = 0.55  # the least likeness worth naming


class WholeNumber(flags.IntegerParser):
    """A whole number; what is none is told of in words."""

    def parse(self, argument):
        try:
            return super().parse(argument)
        except ValueError:
            raise ValueError("expected a whole number.") from None


class NumberOrNone(flags.FloatParser):
    """A number, or None: a decay that is None freezes."""

    def parse(self, argument):
        try:
            return None if argument in (None, "None") else super().parse(argument)
        except ValueError:
            raise ValueError("expected a number, or None to freeze what a decay is of.") from None


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Set absl's flags, for `app.run`; exit with code 1 and one line if that cannot be done."""
    config_flags.register_flag_parser_for_type(int, WholeNumber())
    config_flags.register_flag_parser_for_type(float, NumberOrNone())
    try:
        if "config" in values:
            arguments = values.read_flags_from_files(list(argv[1:]), force_gnu=False)
            argv = [argv[0], *_with_recipe(arguments)]
        left = values(argv)
        if len(left) > 1:
            raise flags.Error(f"found arguments {left[1:]}; expected flags (--name=value) only.")
    except (flags.Error, OSError) as error:
        sys.exit(f"error: {error}")
    return left


def _with_recipe(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the path of the recipe in place of its name.

    Raise flags.Error if there is no such recipe, or if it lacks an entry that is to be set.
    """
    place = next((at for at, it in enumerate(argv) if re.match(r"--?config(=|$)", it)), None)
    matches = (re.match(r"--?(?:no)?config\.([^=]+)", it) for it in argv)
    entries = [found[1] for found in matches if found]
    if place is None:
        if entries:
            raise flags.Error(
                f"found --config.{entries[0]} and no --config; name a recipe before it: "
                f"--config {_any_recipe()}."
            )
        return list(argv)
    given, *rest = [*argv[place].split("=", 1)[1:], *argv[place + 1 :], ""]
    name, colon, variant = given.partition(":")
    recipe = _recipe(name)
    recipes_path.make_importable(recipe)
    path = f"{recipe}{colon}{variant}"
    known = list(_entries(ConfigFileFlagParser("config").parse(path)))
    for entry in entries:
        if entry not in known:
            raise flags.Error(
                f"found --config.{entry}, and {given} has no such entry. {_advice(entry, known)}"
            )
    return [*argv[:place], f"--config={path}", *rest[:-1]]


def _recipe(name: str) -> Path:
    """Return the file of a recipe; raise flags.Error, with the closest one, if there is none."""
    path = recipes_path.find(name)
    if path.is_file():
        return path
    there = {
        recipe.stem: str(recipe)
        for folder in (RECIPES, path.parent)
        for recipe in sorted(folder.glob("[!_]*.py"))
    }
    bare = {} if RECIPES.is_dir() else {known: known for known in recipes_path.names()}
    there.update(bare)
    inside = name.removeprefix(f"{RECIPES}/").removesuffix(".py")
    close = difflib.get_close_matches(inside, bare, 1)
    close = close or difflib.get_close_matches(path.stem, there, 1)
    recipe = there[close[0]] if close else _any_recipe()
    names = ", ".join(bare or sorted(recipe.stem for recipe in RECIPES.glob("[!_]*.py")))
    known = "recipes" if bare else f"names in {RECIPES}/"
    advice = f"closest is {recipe}" if close else f"{known} are {names}"
    raise flags.Error(f"found no recipe {name!r}. The {advice}; start it with --config {recipe}.")


def _any_recipe() -> str:
    """Return what a recipe is to be called: in a clone by its file, elsewhere by its name."""
    return f"{RECIPES}/NAME.py" if RECIPES.is_dir() else "NAME"


def _entries(config: ConfigDict, above: str = "") -> Iterator[str]:
    """Yield the dotted names of all entries, parts that hold others first."""
    for name, found in config.items():
        yield f"{above}{name}"
        if isinstance(found, ConfigDict):
            yield from _entries(found, f"{above}{name}.")


def _advice(entry: str, known: Sequence[str]) -> str:
    if entry.startswith("options."):
        name = entry.split(".")[1]
        return f"Give a domain's options as a dict: --config.options=\"{{'{name}': {{...}}}}\"."
    holders = {name.rpartition(".")[0] for name in known}
    near = max(set(known) - holders, key=lambda name: (_likeness(entry, name), name))
    if _likeness(entry, near) < LIKE:
        folder = RECIPES if RECIPES.is_dir() else recipes_path.shipped()
        return f"All entries, with their units, are in {folder / recipes_path.BASE}."
    return f"The closest is --config.{near}: set that one."


def _likeness(entry: str, name: str) -> float:
    """Return how near a mistyped entry is to one that exists, from 0 to 1.

    Half of it is for the last segment alone, or its initials: learning_rate and lr are near
    optim.learning_rate.
    """
    last, own = entry.split(".")[-1], name.split(".")[-1]
    initials = "".join(word[0] for word in own.split("_"))
    alike = 1.0 if len(last) > 1 and last == initials else _ratio(last, own)
    return (alike + _ratio(entry, name)) / 2


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
