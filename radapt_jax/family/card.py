"""Cards: the facts that are saved beside variables, as JSON.

Format 2 describes backbones and adapters by their own options. Format 1, which knows ResNet-26 and
five adapter kinds, is still read; see `Shared.from_card` and `ModelSpec.from_json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT = 2
READABLE = (1, 2)


def check_card(card: Mapping[str, Any]) -> None:
    """Check the entries of a domain's card.

    Raises:
      KeyError: an entry is missing.
      TypeError: an entry is of the wrong type.
    """
    kinds = {"method": str, "images": Mapping, "results": Mapping, "sha256": str}
    wrong = [key for key, kind in kinds.items() if not isinstance(card[key], kind)]
    has_own = "params" in card["collections"]
    shared = card["shared"]
    if not ((has_own and shared is None) or (isinstance(shared, str) and len(shared) == 64)):
        wrong.append("shared")
    numbers = [*card["images"].values(), *card["results"].values()]
    if wrong or not all(isinstance(number, int | float) for number in numbers):
        raise TypeError(f"entries of the wrong kind: {wrong or 'images, results'}")


def card_text(card: Mapping[str, Any], indent: int | None = None) -> str:
    """Return a card as JSON text; numbers of NumPy become plain ones."""
    return json.dumps(card, indent=indent, default=_plain)


def _plain(found: Any) -> Any:
    if isinstance(found, np.generic):
        return found.item()
    raise TypeError(f"found {found!r} in a card; expected what JSON can say.")


def parse_card(text: str | bytes, where: str) -> dict[str, Any]:
    """Return a card from its JSON text; `where` names it in messages.

    Raises:
      ValueError: it is no JSON object, is of an unknown format, or describes nothing.
    """
    try:
        card = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} holds no readable card: {error}.") from error
    except RecursionError as error:
        raise ValueError(f"{where} holds no readable card: nested too deeply.") from error
    found = card.get("format") if isinstance(card, dict) else None
    if found not in READABLE:
        raise ValueError(
            f"{where} has format {found}; this version of radapt_jax reads "
            f"{' and '.join(map(str, READABLE))}."
        )
    if not isinstance(card.get("sha256"), str) or not _is_names(card.get("collections", [])):
        raise ValueError(f"{where} describes no domain or shared weights: no sha256, collections.")
    return card


def _is_names(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(name, str) for name in found)
