"""Settles what is particular to a domain: its options, the config's, or the decathlon's facts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from radapt_jax.data.decathlon.facts import DECATHLON, decathlon_name, known_options

log = logging.getLogger(__name__)
FACTS = ("mean", "std", "crop", "flip", "adapter_decay")
# The defaults of configs/base.py: what a config has if nobody asked for anything else.
USUAL = {"size": 64, "resize": 72, "crop": "random", "flip": True, "adapter_decay": 5e-4}


def decathlon_facts(
    name: str, fields: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the decathlon's facts for its own images, or if the options ask for them; else {}.

    Raises:
      ValueError: the options ask for the facts of a domain that the decathlon does not have.
    """
    if "facts" in options:
        if not isinstance(options["facts"], str) or decathlon_name(options["facts"]) is None:
            raise ValueError(
                f"domain {name!r}: found facts {options['facts']!r}; expected the name of a domain "
                f"of the Visual Decathlon: {sorted(DECATHLON)}."
            )
        return known_options(options["facts"])
    if fields["source"] != "decathlon":
        return {}
    return known_options(fields.get("dataset") or name, statistics=True)


def settled(
    usual: Mapping[str, Any],
    fields: Mapping[str, Any],
    known: Mapping[str, Any],
    options: Mapping[str, Any],
    multiple_of: int,
) -> dict[str, Any]:
    """Return size, resize and the facts of a domain, from its options, the config, the decathlon.

    Args:
      usual: what the config has for every domain.
      fields: size and resize in pixels; the domain's options override the config's.
      known: the decathlon's facts.
      options: of the domain.
      multiple_of: the backbone takes only sizes that are multiples of this, in pixels.
    """
    asked = {key for key, it in USUAL.items() if usual[key] not in (it, None)}
    facts = {key: it for key, it in known.items() if key not in asked}
    facts |= {key: options[key] for key in FACTS if key in options}
    found = {"size": fields["size"], "resize": fields["resize"]}
    literal = options.keys() | (set() if "crop" in options else asked)
    if facts.get("crop") == "centre" and not literal & found.keys():
        whole = "resize" if found["resize"] % multiple_of == 0 else "size"
        found = dict.fromkeys(found, found[whole])
    return {**found, **facts}


def log_differences(
    name: str,
    usual: Mapping[str, Any],
    chosen: Mapping[str, Any],
    options: Mapping[str, Any],
    known: Mapping[str, Any],
) -> None:
    """Log where a domain differs from the config, and why."""
    usual = dict(usual)
    if usual["adapter_decay"] is None or chosen.get("adapter_decay") is None:
        usual["adapter_decay"] = chosen.get("adapter_decay")  # frozen, or the config's own
    own = {
        key: it
        for key, it in chosen.items()
        if key in {**usual, **options} and (key not in usual or it != usual[key])
    }
    parts = {
        "its options": [key for key in own if key in options],
        "the decathlon's" if known else "all of the shorter side": [
            key for key in own if key not in options
        ],
    }
    for why, keys in parts.items():
        if keys:
            found = ", ".join(f"{key} {own[key]!r}" for key in keys)
            config = ", ".join(f"{key} {usual[key]!r}" for key in keys if key in usual)
            log.info("%s: %s (%s; config: %s)", name, found, why, config or "none")
