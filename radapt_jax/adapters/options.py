"""What can be chosen of an adapter kind: the options that all kinds have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from flax.core import FrozenDict

from radapt_jax.utils.checks import Kind, check_all, number, one_of, optional

LATER = ("decay", "budget")  # options that came later
INIT = one_of("zeros", "he_normal", "keras_he_normal")
NONE_OWN: Mapping[str, float | None] = FrozenDict()
DECAY = optional(number("[0, inf)"))
DECAYS = Kind(
    f"for some of the kind's variables {DECAY.words}",
    lambda found: isinstance(found, Mapping) and all(map(DECAY.holds, found.values())),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen of a kind; subclasses add their own.

    Args:
      init: "zeros" (the adapted network starts as the backbone), "he_normal" (as in the original
        code) or "keras_he_normal" (as Keras draws it: over the inputs, and cut off).
      decay: weight decay of some of the adapter's variables, by name, in place of the one that
        training has for all of them; None freezes.

    Raises:
      ValueError: a value of the wrong kind or outside its range.
    """

    kind: ClassVar[str]  # its name in `registry.KINDS`
    checks: ClassVar[Mapping[str, Kind]] = {"init": INIT, "decay": DECAYS}
    training_only: ClassVar[tuple[str, ...]] = ("init", "decay")

    init: str = "zeros"
    decay: Mapping[str, float | None] = dataclasses.field(default=NONE_OWN, kw_only=True)

    def __post_init__(self) -> None:
        check_all(vars(self), self.checks, f"{self.kind} adapters: ")
        object.__setattr__(self, "decay", FrozenDict(self.decay))

    def served(self) -> Options:
        """Return these options with those that matter in training only at their defaults."""
        plain: dict[str, Any] = {it.name: it.default for it in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: plain[name] for name in self.training_only})

    def chosen(self) -> dict[str, Any]:
        """Return the options by name."""
        return {it.name: getattr(self, it.name) for it in dataclasses.fields(self)}

    def to_json(self) -> dict[str, Any]:
        """Return the kind and the options as JSON values; see `registry.options_from_json`.

        Those that cards of earlier versions lack are left out where they say nothing.
        """
        plain = {
            name: dict(it) if isinstance(it, Mapping) else it
            for name, it in self.chosen().items()
            if name not in LATER or it
        }
        return {"kind": self.kind, **plain}
