"""A family on disk: the shared weights once, and each domain in a folder of its own.

<workdir>/shared/            Orbax: params             + card.json (network, fingerprint)
<workdir>/domains/<name>/    Orbax: adapters, ...      + card.json (see `Member.card`)
<workdir>/training/<name>/   states to resume from (see radapt_jax.train.checkpoints)

Reading changes nothing, so a family can be loaded while it is being trained. With several processes
(see radapt_jax.utils.distributed), all call save and process 0 writes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from radapt_jax.data.domain import check_name
from radapt_jax.family.card import card_text, parse_card
from radapt_jax.family.member import Member
from radapt_jax.family.shared import Shared
from radapt_jax.models.registry import Backbones
from radapt_jax.utils import distributed, files, trees

VARIABLES = "variables"
CARD = "card.json"


def save_shared(shared: Shared, workdir: str | Path) -> None:
    """Write `<workdir>/shared`, replacing what is there.

    Raises:
      OSError: it cannot be written; what was saved before is intact.
    """
    _replace(files.located(workdir) / "shared", {"params": shared.params}, shared.card())


def load_shared(workdir: str | Path, backbones: Backbones | None = None) -> Shared:
    """Read `<workdir>/shared`.

    Args:
      workdir: of a run, or where a family was saved.
      backbones: your own networks, by name.

    Raises:
      FileNotFoundError: there are no shared weights.
      ValueError: the card describes none, or the arrays are not those that were saved.
    """
    folder = files.located(workdir) / "shared"
    return _steadily(lambda where: _load_shared(where, backbones), folder)


def _load_shared(folder: Path, backbones: Backbones | None) -> Shared:
    card = read_card(folder, "shared weights", lambda: "Pre-train first: configs/scratch.py.")
    try:
        empty = Shared.from_card(card, backbones)
        expected = {"params": empty.spec.abstract(1)["params"]}
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{folder}/{CARD} describes no shared weights: {error!r}.") from error
    shared = dataclasses.replace(empty, params=_load(folder, expected)["params"])
    if trees.fingerprint(shared.params) != card["sha256"]:
        raise ValueError(
            f"{folder} is damaged: its values are not those that were saved. Restore it from a "
            "copy, or train it again."
        )
    return shared


def save_member(member: Member, workdir: str | Path) -> None:
    """Write `<workdir>/domains/<name>`, replacing what is there.

    Raises:
      OSError: it cannot be written; what was saved before is intact.
    """
    folder = files.located(workdir) / "domains" / member.domain.name
    _replace(folder, dict(member.variables), member.card())


def load_member(workdir: str | Path, name: str, backbones: Backbones | None = None) -> Member:
    """Read one domain.

    Args:
      workdir: of a run, or where a family was saved.
      name: of the domain.
      backbones: your own networks, by name.

    Raises:
      FileNotFoundError: there is no such domain.
      ValueError: `name` cannot name a domain, the card is another domain's, or shapes, dtypes or
        values do not match it.
    """

    def load(folder: Path) -> Member:
        card, empty = _described(folder, name, workdir, backbones)
        member = dataclasses.replace(empty, variables=_load(folder, empty.abstract()))
        return member.verified(card["sha256"], str(folder))

    return _steadily(load, domain_folder(workdir, name))


def read_member_card(
    workdir: str | Path, name: str, backbones: Backbones | None = None
) -> tuple[dict[str, Any], Member]:
    """Return a domain's card, and the domain with empty collections; see `load_member`.

    Raises:
      FileNotFoundError: there is no such domain.
      ValueError: `name` cannot name a domain, or the card is damaged or another domain's.
    """

    def read(folder: Path) -> tuple[dict[str, Any], Member]:
        return _described(folder, name, workdir, backbones)

    return _steadily(read, domain_folder(workdir, name))


def delete_member(workdir: str | Path, name: str) -> None:
    """Delete `<workdir>/domains/<name>`, at once: a kill leaves all of it or nothing.

    Raises:
      FileNotFoundError: there is no such domain.
      ValueError: `name` cannot name a domain.
      OSError: it cannot be deleted.
    """
    folder = domain_folder(workdir, name)
    new, _ = _beside(folder)
    _settle(folder)
    os.replace(folder, new)
    shutil.rmtree(new)


def domain_folder(workdir: str | Path, name: str) -> Path:
    """Return where a domain is saved.

    Raises:
      ValueError: `name` cannot name a domain.
    """
    check_name(name)
    return files.located(workdir) / "domains" / name


def _described(
    folder: Path, name: str, workdir: str | Path, backbones: Backbones | None
) -> tuple[dict[str, Any], Member]:
    """Return the card of a domain, and the member it describes, without variables."""
    card = read_card(folder, f"domain {name!r}", lambda: f"Domains there: {list_members(workdir)}.")
    empty = Member.from_card(card, str(folder), backbones=backbones)
    if empty.domain.name != name:
        raise ValueError(
            f"{folder} holds domain {empty.domain.name!r}; expected {name!r}. Give the folder its "
            "old name, and add the domain under the new one: family.add."
        )
    return card, empty


def list_members(workdir: str | Path) -> list[str]:
    """Return the names of the domains saved under a workdir, sorted."""
    folder = files.located(workdir) / "domains"
    found = {path.parent.name for path in folder.glob(f"*/{CARD}")}
    old = {name[1:-4] for name in found if name.startswith(".") and name.endswith(".old")}
    return sorted({name for name in found if not name.startswith(".")} | old)


def read_card(folder: Path, what: str, hint: Callable[[], str]) -> dict[str, Any]:
    """Return the card in a folder; `what` is expected there, and `hint` says what to do.

    Raises:
      FileNotFoundError: there is no card.
      ValueError: see `card.parse_card`.
    """
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(f"found no {what} at {folder} (no {CARD}). {hint()}")
    return parse_card(path.read_bytes(), str(path))


def clean(workdir: str | Path) -> None:
    """Recover the workdir after killed saves; only for the process that writes there."""
    workdir = files.located(workdir)
    domains = (workdir / "domains").glob(".*.*")
    names = {leftover.stem[1:] for leftover in domains if leftover.suffix in (".new", ".old")}
    for folder in (workdir / "shared", *(workdir / "domains" / name for name in names)):
        _settle(folder)


def _replace(folder: Path, tree: dict[str, Any], card: Mapping[str, Any]) -> None:
    """Write a checkpoint and its card beside the old one, then move it into place."""
    new, old = _beside(folder)

    def make_room() -> None:
        _settle(folder)
        new.mkdir(parents=True)

    def put_in_place() -> None:
        files.write_synced(new / CARD, card_text(card, indent=1) + "\n")
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)

    with files.saving(folder):
        distributed.by_main(make_room)
        with distributed.together():
            ocp.save(new / VARIABLES, trees.to_numpy(tree))
        distributed.by_main(put_in_place)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Return where the new folder is written, and where the old one is moved aside."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _settle(folder: Path) -> None:
    """Move a folder back if only its old copy is left, and remove what killed saves left behind."""
    new, old = _beside(folder)
    if old.is_dir() and not folder.exists():
        os.replace(old, folder)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _steadily(read: Callable[[Path], Any], folder: Path) -> Any:
    """Read a checkpoint; if another process replaces it meanwhile, read it again."""
    while True:
        before = _identity(folder)
        _, old = _beside(folder)
        try:
            return read(old if before is None and old.is_dir() else folder)
        except (FileNotFoundError, ValueError):
            if _identity(folder) == before:
                raise


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from one that replaces it; None if there is none."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _load(folder: Path, expected: trees.Tree) -> dict[str, Any]:
    """Read a checkpoint, and check its shapes and dtypes.

    It is read as it was saved: Orbax casts silently where it is told what to expect. Its metadata
    are left alone: TensorStore 0.1.86 never frees what it tells of them, 1 MiB of a ResNet-26.
    """
    path = folder / VARIABLES
    try:
        found = trees.to_numpy(ocp.load(path))
    except Exception as error:
        raise ValueError(f"{path} is damaged, or no Orbax checkpoint: {error}") from error
    trees.check_like(found, expected, f"the checkpoint {path}")
    return found
