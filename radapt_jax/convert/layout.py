"""Where PyTorch has the variables of a backbone: one name for each, and the axes of its array.

An importer and the export of its networks read the same table, `Layout.places`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from radapt_jax.convert.torch import COUNTER, LINEAR, NORM
from radapt_jax.models.backbone import Backbone
from radapt_jax.utils import trees


class Layout(NamedTuple):
    """How PyTorch names the layers of a network without adapters.

    head: its name.
    conv, norm: the name of a convolution, and of a norm, from its path here.
    norms: paths of norms that follow no convolution.
    """

    head: str
    conv: Callable[[str], str]
    norm: Callable[[str], str]
    norms: tuple[str, ...] = ()

    def places(self, backbone: Backbone) -> dict[str, tuple[str, str]]:
        """Return collection and path of every variable, by the name of its tensor."""
        found = {
            f"{self.head}.{theirs}": ("adapters", f"head/{ours}") for theirs, ours in LINEAR.items()
        }
        for conv, *_ in backbone.convolutions():
            found[f"{self.conv(conv)}.weight"] = ("params", f"{conv}/kernel")
        for norm in self.all_norms(backbone):
            for theirs, (collection, ours) in NORM.items():
                found[f"{self.norm(norm)}.{theirs}"] = (collection, f"{norm}/{ours}")
        return found

    def all_norms(self, backbone: Backbone) -> tuple[str, ...]:
        """Return the paths of all norms."""
        return (*(it.norm for it in backbone.convolutions() if it.norm), *self.norms)

    def state_dict(self, backbone: Backbone, variables: trees.Variables) -> dict[str, np.ndarray]:
        """Return a plain network's variables by PyTorch's names, with its counts of batches, 0."""
        leaves = trees.flatten(variables)
        found = {
            name: _pytorchs(path, np.asarray(leaves["/".join((collection, path))]))
            for name, (collection, path) in self.places(backbone).items()
        }
        counters = {
            f"{self.norm(norm)}.{COUNTER}": np.zeros((), np.int64)
            for norm in self.all_norms(backbone)
        }
        return {**found, **counters}


def _pytorchs(path: str, array: np.ndarray) -> np.ndarray:
    """Return an array with PyTorch's axes: HWIO becomes OIHW, and (inputs, outputs) is turned."""
    if path.endswith("kernel"):
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return np.ascontiguousarray(array)


def check_names(tensors: Mapping[str, Any], places: Mapping[str, Any], network: str) -> None:
    """Raise ValueError unless the tensors are exactly those of the network."""
    missing, unknown = (
        sorted(places.keys() - tensors.keys()),
        sorted(tensors.keys() - places.keys()),
    )
    for names, what in ((missing, "is missing"), (unknown, "is not one of its tensors")):
        if names:
            more = f" (and {len(names) - 1} more: {names[1:4]})" if names[1:] else ""
            raise ValueError(
                f"found a {network} of which {names[0]!r} {what}{more}; expected the "
                f"{len(places)} tensors of the whole network and no others."
            )
