"""What a run must keep when it is started again in the same workdir."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from radapt_jax.experiment.config import BEGUN_IN, ENTRIES, RUNS, place_of
from radapt_jax.train.distill import Distillation
from radapt_jax.train.options import LATER
from radapt_jax.utils import files

# What may change when a workdir is used again: more domains, and how the run is watched.
FREE = (
    "domains",
    "data.cache",
    "data.dir",
    "data.max_unreadable",
    "data.on_device",
    "on_nan",
    "train.log_every",
    "train.together",
)

# Entries that were added since, and what runs did before.
ADDED = {
    **{ENTRIES[name]: it for name, it in LATER.items()},
    "compress.statistics": 1024,  # none before; domains that are still to be trained get new ones
    "compress.among": "",
    "compress.at_most": 0.5,
    "compress.fit": "svd",
    "compress.moments": 1024,
    "compress.distill": False,
    "compress.temperature": 2.0,
    "teachers": "",
    "temperature": 2.0,
    "distill.on": False,
    "distill.teachers": "",
    **{f"distill.{name}": it for name, it in dataclasses.asdict(Distillation()).items()},
}
EVERYWHERE = {"adapter.stages": "early,mid,late", "adapter.convs": "first,second"}


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Raise ValueError if <workdir> holds a run whose config differs in what a run must keep.

    A folder that is spelt in another way is the same one.
    """
    path = workdir / "config.json"
    if not path.is_file():
        return
    now = _shortened(flat(json.loads(config.to_json_best_effort())))
    try:
        before = _shortened(_upgraded(flat(json.loads(path.read_bytes()))))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. It says how this run was begun: restore it, or use "
            "another --workdir."
        ) from error
    begun_in = before.pop(BEGUN_IN, os.getcwd())
    for key in RUNS:
        if place_of(before.get(key), begun_in) == place_of(now.get(key), os.getcwd()):
            before[key] = now.get(key)
    changed = [
        f"  config.{key}: was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _is_free(key, workdir)
    ]
    if changed:
        raise ValueError(
            f"{workdir} holds a run with another config:\n"
            + "\n".join(changed)
            + "\nUse another --workdir, or the same values to resume."
        )


def _is_free(key: str, workdir: Path) -> bool:
    """Tell whether an entry may change: of a domain's options, while it is not trained yet."""
    first, *names = key.split(".")
    if first != "options" or len(names) < 2:
        return key in FREE or first == "options"
    name, option = names[0], names[1]
    finished = (workdir / "domains" / name).is_dir()
    return f"data.{option}" in FREE or not finished


def _shortened(entries: dict[str, Any]) -> dict[str, Any]:
    """Return entries in which "" stands for a placement everywhere, which was once spelt out."""
    return {key: "" if EVERYWHERE.get(key) == found else found for key, found in entries.items()}


def _upgraded(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a config that an earlier version has written, as they are now.

    Entries that came later are as they were without them, and kinds had no options of their own.
    """
    entries = {**ADDED, **entries}
    if "adapter.init" not in entries:
        return entries
    init = entries.pop("adapter.init")
    dropout = [entries.pop(f"adapter.dropout_{it}", 0.0) for it in ("first", "second")]
    options = {"init": init} if init != "zeros" else {}
    options |= {"dropout": dropout} if any(dropout) else {}
    return {**entries, **flat({"adapter": {"options": options}, "backbone": {"options": {}}})}


def without_places(config: ConfigDict) -> dict[str, Any]:
    """Return the entries of a config that all processes of a run must share."""
    entries = flat(json.loads(config.to_json_best_effort()))
    return {key: it for key, it in entries.items() if key.split(".")[-1] not in ("dir", "cache")}


def remember(config: ConfigDict, workdir: Path) -> None:
    """Write <workdir>/config.json: the config, and the folder that relative paths in it are of."""
    workdir.mkdir(parents=True, exist_ok=True)
    facts = json.loads(config.to_json_best_effort()) | {BEGUN_IN: os.getcwd()}
    files.write_atomically(workdir / "config.json", json.dumps(facts, indent=1) + "\n")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
