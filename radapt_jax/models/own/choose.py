"""Which layers of a network carry adapters, and which is its classifier."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from radapt_jax.models.own.layers import Anatomy, Layer

Pattern = str | re.Pattern[str]
Where = Pattern | Sequence[Pattern] | Callable[[str], bool] | None
SHOWN = 5  # paths in a message


def classifier_of(anatomy: Anatomy, path: str | None) -> str:
    """Return the path of the classifier: the last nn.Dense that is called, unless it is named.

    Raises:
      ValueError: there is no such nn.Dense, or the network does not return its logits.
    """
    dense = {layer.path: layer for layer in anatomy.layers if layer.kind == "Dense"}
    if not dense or (path is not None and path not in dense):
        raise ValueError(
            f"found {'no nn.Dense' if not dense else f'no nn.Dense at {path!r}'} in this network; "
            f"expected the classifier to be one{f' of {list(dense)}' if dense else ''}."
        )
    found = path or list(dense)[-1]
    outputs = anatomy.variables[f"params/{found}/kernel"].shape[-1]
    shape = getattr(anatomy.logits, "shape", None)
    if shape != (1, outputs):
        what = "several arrays" if shape is None else f"an array of shape {shape}"
        raise ValueError(
            f"found a network that returns {what} for one image; expected logits (1, {outputs}), "
            f"those of the classifier {found!r}. Name another, head=..., or say how the network "
            "is called: call=lambda module, images, train: ..."
        )
    return found


def chosen_layers(anatomy: Anatomy, where: Where, classifier: str) -> tuple[Layer, ...]:
    """Return the layers that can carry adapters, in the order in which they are called.

    Raises:
      ValueError: `where` matches no layer, or one that can carry none.
    """
    layers = [layer for layer in anatomy.layers if layer.path != classifier]
    if where is None:
        served = tuple(it for it in layers if it.kind == "Conv" and not it.refused)
        if not served:
            raise ValueError(
                "found no nn.Conv that can carry an adapter" + _listed(layers) + "\nChoose dense "
                "layers, where='*'; or where=() to train norms and classifier alone."
            )
        return served
    matches = _matcher(where)
    found = tuple(layer for layer in layers if matches(layer.path))
    if not found and where != ():
        raise ValueError(f"found no layer where {where!r} matches; there are" + _listed(layers))
    if refused := [layer for layer in found if layer.refused]:
        raise ValueError(
            f"found {len(refused)} layers that can carry no adapter" + _listed(refused) + "\nChoose"
            " others: where takes patterns of paths, or a function of a path."
        )
    return found


def _matcher(where: Pattern | Sequence[Pattern] | Callable[[str], bool]) -> Callable[[str], bool]:
    if callable(where):
        return where
    patterns = [where] if isinstance(where, str | re.Pattern) else list(where)

    def matches(path: str) -> bool:
        return any(
            bool(it.search(path)) if isinstance(it, re.Pattern) else fnmatch.fnmatchcase(path, it)
            for it in patterns
        )

    return matches


def _listed(layers: Sequence[Layer]) -> str:
    """Return layers as lines of a message, with what speaks against each."""
    lines = [
        f"\n  {it.path} ({it.kind}){it.refused and f': {it.refused}'}" for it in layers[:SHOWN]
    ]
    more = f"\n  ... and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
    return ":" + "".join(lines) + more
