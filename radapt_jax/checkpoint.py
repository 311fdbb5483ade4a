"""What is on disk: shared weights once, each domain apart, training state apart from both.

<workdir>/shared/            Orbax: params             + card.json (network, fingerprint)
<workdir>/domains/<name>/    Orbax: adapters, ...      + card.json (see `Member.card`)
<workdir>/training/<name>/   Orbax: states to resume from, the latest and the best
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization
from orbax.checkpoint import v1 as ocp

from radapt_jax import trees
from radapt_jax.domains import check_name
from radapt_jax.member import FORMAT, Member, parse_card
from radapt_jax.models import ModelSpec

VARIABLES = "variables"
CARD = "card.json"


@dataclasses.dataclass(frozen=True)
class Shared:
    """Shared weights: `params`, the backbone and width they are of, and how they came about.

    `source` names the domain they were pre-trained on (its norms start new domains), and
    `adapter` the kind they were pre-trained with; "none" is an off-the-shelf backbone. Jointly
    compressed domains share a β for each adapted convolution: those are in `params` too, and
    `ranks` tells their ranks.
    """

    params: Mapping[str, Any]
    backbone: str = "resnet26"
    width: float = 1.0
    source: str | None = None
    adapter: str = "none"
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        """The network whose `params` these are: with β in it where domains share one."""
        if self.ranks:
            return ModelSpec(self.backbone, self.width, adapter="joint", ranks=self.ranks)
        return ModelSpec(self.backbone, self.width)

    def fingerprint(self, *, joint: bool) -> str:
        """Return the sha256 of the filters, and with `joint` of the β beside them."""
        leaves, _ = trees.split(self.params, lambda path: joint or not path.endswith("/beta"))
        return trees.fingerprint(trees.unflatten(leaves))

    def card(self) -> dict[str, Any]:
        facts = dataclasses.asdict(dataclasses.replace(self, params={}))
        del facts["params"]
        return {"format": FORMAT, **facts, "sha256": trees.fingerprint(self.params)}


def save_shared(shared: Shared, workdir: str | Path) -> None:
    """Write `<workdir>/shared`, replacing what is there."""
    _replace(Path(workdir).absolute() / "shared", {"params": shared.params}, shared.card())


def load_shared(workdir: str | Path) -> Shared:
    """Read `<workdir>/shared`.

    Raises:
      FileNotFoundError: no shared weights there.
      ValueError: the arrays are not those that were saved.
    """
    folder = Path(workdir).absolute() / "shared"
    card = read_card(folder, "shared weights", "Pre-train first: configs/scratch.py.")
    try:
        facts = {key: card[key] for key in ("backbone", "width", "source", "adapter")}
        facts["ranks"] = card.get("ranks", {})
        if facts["source"] is not None:
            check_name(facts["source"])
        expected = {"params": Shared({}, **facts).spec.abstract(1)["params"]}
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{folder}/{CARD} describes no shared weights: {error!r}.") from error
    shared = Shared(_load(folder, expected)["params"], **facts)
    if trees.fingerprint(shared.params) != card["sha256"]:
        raise ValueError(f"{folder} is damaged: its values are not those that were saved.")
    return shared


def save_member(member: Member, workdir: str | Path) -> None:
    """Write `<workdir>/domains/<name>`, replacing what is there."""
    folder = Path(workdir).absolute() / "domains" / member.domain.name
    _replace(folder, dict(member.variables), member.card())


def load_member(workdir: str | Path, name: str) -> Member:
    """Read one domain.

    Raises:
      FileNotFoundError: no such domain there.
      ValueError: `name` is none of a domain, the card is another domain's, or shapes, dtypes or
        values are not those it tells of.
    """
    check_name(name)
    folder = Path(workdir).absolute() / "domains" / name
    card = read_card(folder, f"domain {name!r}", f"Domains there: {list_members(workdir)}.")
    empty = Member.from_card(card, {name: {} for name in card.get("collections", [])}, str(folder))
    if empty.domain.name != name:
        raise ValueError(
            f"{folder} holds domain {empty.domain.name!r}; expected {name!r}. Give the folder its "
            "old name, and add the domain under the new one: family.add."
        )
    member = dataclasses.replace(empty, variables=_load(folder, empty.abstract()))
    return member.verified(card["sha256"], str(folder))


def list_members(workdir: str | Path) -> list[str]:
    """Return the names of the domains saved under a workdir, sorted."""
    folder = Path(workdir) / "domains"
    for old in folder.glob(".*.old"):
        _recover(folder / old.name.removeprefix(".").removesuffix(".old"))
    return sorted(path.parent.name for path in folder.glob(f"[!.]*/{CARD}"))


def read_card(folder: Path, what: str, hint: str) -> dict[str, Any]:
    _recover(folder)
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(f"found no {what} at {folder} (no {CARD}). {hint}")
    return parse_card(path.read_bytes(), str(path))


def _replace(folder: Path, tree: dict[str, Any], card: Mapping[str, Any]) -> None:
    """Write a checkpoint with its card beside the old one, then put it in its place."""
    _recover(folder)
    new, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    ocp.save(new / VARIABLES, trees.to_numpy(tree))
    (new / CARD).write_text(json.dumps(card, indent=1) + "\n")
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Put back what was moved aside by a replacement that was killed before its last step."""
    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir() and not folder.exists():
        os.replace(old, folder)


def _load(folder: Path, expected: trees.Tree) -> dict[str, Any]:
    """Read a checkpoint after its shapes and dtypes; Orbax itself would cast without a word."""
    path = folder / VARIABLES
    try:
        metadata = trees.flatten(ocp.metadata(path).metadata)
    except Exception as error:
        raise ValueError(f"{path} is no readable Orbax checkpoint: {error}") from error
    trees.check_like(trees.unflatten(metadata), expected, f"the checkpoint {path}")
    try:
        return trees.to_numpy(ocp.load(path))
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error}") from error


class TrainingCheckpoints:
    """Training states of one domain; keeps the latest and the one with the best validation top-1.

    A context manager: saving goes on in the background, and leaving waits for it.

    Args:
      folder: where they are kept.
      leave_out: fields of the state that are not saved, because they are frozen and on disk
        already (the shared weights).
    """

    def __init__(self, folder: str | Path, leave_out: Collection[str] = ()) -> None:
        for leftover in Path(folder).glob("*.orbax-checkpoint-tmp"):  # of a save that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        keep = ocp.training.preservation_policies
        self._leave_out = leave_out
        self._checkpointer = ocp.training.Checkpointer(
            Path(folder).absolute(),
            preservation_policy=keep.AnyPreservationPolicy(
                [keep.LatestN(1), keep.BestN(get_metric_fn=_top1, n=1)]
            ),
        )

    def __enter__(self) -> TrainingCheckpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    def top1(self) -> dict[int, float]:
        """Return the validation top-1 (percent) by step of the checkpoints there are."""
        self._checkpointer.wait()
        return {found.step: _top1(found.metrics) for found in self._checkpointer.checkpoints}

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return max(self.top1(), default=None)

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the highest validation top-1 (the last of equals)."""
        found = self.top1()
        return max(found, key=lambda step: (found[step], step), default=None)

    def save(self, step: int, state: Any, top1: float) -> None:
        """Save a training state in the background; it is copied to the host first."""
        host = jax.tree.map(np.array, self._part(state))
        self._checkpointer.save_async(step, host, force=True, metrics={"top1": float(top1)})

    def load(self, step: int, like: Any) -> Any:
        """Return a state as `like`, on the host, with what was saved at `step`.

        Raises:
          ValueError: shapes or dtypes differ from `like`'s.
        """
        self._checkpointer.wait()
        expected = self._part(like)
        found = self._checkpointer.metadata(step).metadata
        what = f"the training state {self._checkpointer.directory}/{step}"
        trees.check_like(_without_empty(found), _without_empty(expected), what)
        host = _fill_empty(jax.tree.map(np.array, self._checkpointer.load(step)), expected)
        kept = serialization.to_state_dict(like)
        return serialization.from_state_dict(like, {**kept, **host})

    def _part(self, state: Any) -> dict[str, Any]:
        fields = serialization.to_state_dict(state)
        return {name: tree for name, tree in fields.items() if name not in self._leave_out}


def _top1(metrics: Any) -> float:
    return float(metrics["top1"])


def _without_empty(tree: Any) -> dict[str, Any]:
    return {path: leaf for path, leaf in trees.flatten(tree).items() if hasattr(leaf, "shape")}


def _fill_empty(found: Any, expected: Any) -> Any:
    """Put back the empty nodes of optimiser states (Orbax does not keep all of them)."""
    if not isinstance(expected, Mapping):
        return found
    return {key: _fill_empty(found.get(key, {}), value) for key, value in expected.items()}
