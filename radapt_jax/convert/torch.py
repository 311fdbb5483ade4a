"""What imports from PyTorch share: names, layouts, and a family of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax.data.domain import Domain
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.family.shared import Shared
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

NORM = {  # collection and leaf of a batch norm's tensors
    "weight": ("adapters", "scale"),
    "bias": ("adapters", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
COUNTER = "num_batches_tracked"  # of a batch norm, beside `NORM`
LINEAR = {"weight": "kernel", "bias": "bias"}


def named(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a state_dict without "module." before their names, and no counters.

    Raises:
      ValueError: a tensor is there with "module." and without.
    """
    found: dict[str, Any] = {}
    for name, tensor in state_dict.items():
        plain = name.removeprefix("module.")
        if plain in found:
            raise ValueError(
                f"found {plain!r} twice, with 'module.' before it and without; expected one."
            )
        if not plain.endswith(COUNTER):
            found[plain] = tensor
    return found


def arranged(
    tensors: Mapping[str, Any], place: Callable[[str], tuple[str, str] | None]
) -> dict[str, np.ndarray]:
    """Return variables by collection and path.

    OIHW becomes HWIO; linear layers, adapters and heads become matrices (inputs, outputs).

    Args:
      tensors: see `named`.
      place: from a tensor's name to collection and path; None: it is left out.

    Raises:
      ValueError: a kernel that is neither a convolution's nor a linear layer's.
    """
    found = {}
    for name, tensor in tensors.items():
        if (placed := place(name)) is not None:
            array = np.asarray(tensor)
            if placed[1].endswith("kernel"):
                array = _arrange(name, placed[0], array)
            found["/".join(placed)] = np.ascontiguousarray(array)
    return found


def _arrange(name: str, collection: str, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 4):
        raise ValueError(
            f"found {name} of shape {array.shape}; expected 4 dimensions (a convolution) or 2 "
            "(a linear layer)."
        )
    if collection == "adapters" and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def source_family(
    variables: Mapping[str, Any],
    spec: ModelSpec,
    name: str,
    classes: Sequence[str] | None,
    **facts: Any,
) -> Family:
    """Return a family of imported variables, whose source domain they were trained on.

    Args:
      variables: its three collections; they are taken in float32.
      spec: its network.
      name: of the domain.
      classes: names in label order; None: "0", "1" and so on.
      facts: of the domain; see `Domain`.

    Raises:
      ValueError: names for another class count than the head's, a fact that `Domain` refuses, or
        variables that are not those of the network.
    """
    leaves = trees.flatten(variables)
    own = trees.collections({path: np.asarray(leaf, np.float32) for path, leaf in leaves.items()})
    count = own["adapters"]["head"]["kernel"].shape[1]
    names = tuple(map(str, range(count)) if classes is None else classes)
    if len(names) != count:
        raise ValueError(
            f"found {len(names)} class names for a head of {count} classes; expected one for each, "
            "in label order."
        )
    kind = spec.adapter.kind
    shared = Shared(own.pop("params"), spec.backbone, source=name, adapter=kind)
    return Family(shared, [Member(Domain(name, names, **facts), spec, own, method=kind)])
