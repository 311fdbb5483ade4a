"""Where a domain's variables are: in a network of one's own, and in a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from radapt_jax.adapters.base import is_adapters

HEAD = "adapters/head/"
OF_NORMS = ("scale", "bias")
# A network may have other layers under "head"; in a family only the classifier is there.
BESIDE = "beside_head/"


class Moved(NamedTuple):
    """The classifier and the norms of a network: in `params` there, in `adapters` in a family.

    Everything else has one place.

    Args:
      head: path of the classifier.
      norms: paths of the norms.
    """

    head: str
    norms: frozenset[str]

    def outside(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Return the network's variables, by collection and path, at their places in a family."""
        return {self._outside(path): leaf for path, leaf in leaves.items()}

    def inside(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Undo `outside`."""
        return {self._inside(path): leaf for path, leaf in leaves.items()}

    def _outside(self, path: str) -> str:
        collection, _, rest = path.partition("/")
        module, _, leaf = rest.rpartition("/")
        if collection == "params" and module == self.head:
            return f"{HEAD}{leaf}"
        if collection == "params" and module in self.norms and leaf in OF_NORMS:
            return f"adapters/{BESIDE if rest.startswith('head/') else ''}{rest}"
        return path

    def _inside(self, path: str) -> str:
        if not path.startswith("adapters/") or is_adapters(path):
            return path
        if path.startswith(HEAD):
            return f"params/{self.head}/{path.removeprefix(HEAD)}"
        return f"params/{path.removeprefix('adapters/').removeprefix(BESIDE)}"
