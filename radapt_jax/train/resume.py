"""What a domain's training must keep when it goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from radapt_jax.train.job import Job
from radapt_jax.train.options import LATER
from radapt_jax.utils import files, trees


def facts_of(job: Job) -> dict[str, Any]:
    """Return what a training must go on with as it began."""
    data, plan = job.data, job.plan
    images: dict[str, Any] = {name: len(split) for name, split in data.splits.items()}
    if data.spec is not None:
        spec = dataclasses.asdict(data.spec)
        del spec["dir"]
    else:
        spec = {name: split.digest for name, split in data.splits.items()}
    images["held out"] = data.held_out.digest if data.held_out.names else None
    facts = {"domain": data.domain.to_json(), "data": spec, "images": images, "decay": plan.decay}
    facts["teacher"] = {"sha256": None, "temperature": None}  # there is none, and so in old files
    if job.teacher is not None:
        sha256 = trees.fingerprint(job.teacher.variables)
        facts["teacher"] = {"sha256": sha256, "temperature": job.temperature}
    return json.loads(json.dumps(facts))


def check_resumed(path: Path, name: str, now: dict[str, Any]) -> None:
    """Write down what a training goes on with, or compare it with what it began with.

    Raises:
      ValueError: the domain, its images or its decay have changed since.
    """
    if path.is_file():
        before = json.loads(path.read_text())
        if "options" in before:
            before["options"] = {**LATER, **before["options"]}
        check_same_facts(
            before,
            now,
            f"{name}: its training began with something else ({path})",
            "\nSet it back to resume, use another --workdir, or delete the folder "
            f"{path.with_suffix('')} and this file to train it anew.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, json.dumps(now, indent=1) + "\n")


def check_same_facts(
    before: dict[str, Any], now: dict[str, Any], message: str, hint: str = ""
) -> None:
    """Raise ValueError with `message`, what differs and `hint`, if anything differs."""
    changed = [
        f"  {part}.{key}: was {before.get(part, {}).get(key)!r}, is {value!r}"
        for part, entries in now.items()
        for key, value in entries.items()
        if before.get(part, {}).get(key) != value
    ]
    if changed:
        raise ValueError(f"{message}:\n" + "\n".join(changed) + hint)


def skipped_path(folder: Path) -> Path:
    return folder / "skipped.json"


def skipped_before(folder: Path) -> list[int]:
    """Return the batches that a domain's training has left out so far; see `Progress.rewind`."""
    path = skipped_path(folder)
    return json.loads(path.read_text()) if path.is_file() else []
