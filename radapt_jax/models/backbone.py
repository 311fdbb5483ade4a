"""The contract of a backbone: what a network says of itself."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from radapt_jax.adapters.base import Runtime
from radapt_jax.adapters.options import Options
from radapt_jax.nn.norm import NormRule
from radapt_jax.utils.checks import TEXT, Kind, check, check_all, optional, several

PLACED = optional(several(TEXT))


LARGE_ENOUGH = 32  # pixels; of most networks, no variable's shape depends on an image's
# How variables start, by the last part of their path; others as `nn.starts.STARTS["he_normal"]`.
BY_LEAF = {"scale": "ones", "var": "ones", "bias": "zeros", "mean": "zeros"}


class Convolution(NamedTuple):
    """One shared convolution, or dense layer, that can carry an adapter.

    Args:
      path: its own.
      norm: path of the domain norm after it, which takes nothing else; None: there is none.
      groups: of the convolution.
      axes: how many axes of a dense layer's kernel are inputs; 0: it is a convolution.
    """

    path: str
    norm: str | None
    groups: int = 1
    axes: int = 0


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which convolutions of a backbone carry adapters.

    Args:
      stages: names of stages; None: all.
      convs: names of the convolutions of a block; None: the backbone's usual ones.
    """

    stages: tuple[str, ...] | None = None
    convs: tuple[str, ...] | None = None

    def has(self, stage: str, conv: str | None = None) -> bool:
        """Tell whether a convolution of a stage is named; None: it is in no block."""
        placed = stage in (self.stages or ())
        return placed and (conv is None or conv in (self.convs or ()))


@dataclasses.dataclass(frozen=True)
class Backbone(abc.ABC):
    """A network by its name and its options, which are the fields of the subclass.

    Class attributes:
      name: in `registry.BACKBONES`, and on disk.
      stages: names of the stages, from the image on; adapters are placed by them.
      convs: names of the convolutions of a block; adapters are placed by them, too.
      usual_convs: those that carry adapters where none are named; None: all.
      norm: the rule of its norms.
      multiple_of: the sides of images must be multiples of so many pixels.
      checks: what the options may be.

    Raises:
      ValueError: an option of the wrong kind or outside its range.
    """

    name: ClassVar[str]
    stages: ClassVar[tuple[str, ...]]
    convs: ClassVar[tuple[str, ...]]
    usual_convs: ClassVar[tuple[str, ...] | None] = None
    norm: ClassVar[NormRule] = NormRule()
    multiple_of: ClassVar[int] = 1
    checks: ClassVar[Mapping[str, Kind]] = {}

    def __post_init__(self) -> None:
        check_all(vars(self), self.checks, f"backbone {self.name}: ")

    @abc.abstractmethod
    def build(
        self,
        num_classes: int,
        adapter: Options,
        placement: Placement,
        *,
        folded_norms: bool,
        runtime: Runtime,
    ) -> Any:
        """Return the network: a Linen module, or what has its `init` and `apply` and is hashable.

        It maps normalised images (b, h, w, 3) to logits (b, num_classes) as
        `apply(variables, images, train=...)`, and keeps shared weights in `params`, everything of
        the domain in `adapters` and `batch_stats`, and the classifier under `head`.

        Args:
          num_classes: outputs of the domain's head.
          adapter: of the convolutions that `placement` names.
          placement: checked already.
          folded_norms: norms after convolutions are folded into them but for a bias.
          runtime: how it is computed.
        """

    @abc.abstractmethod
    def convolutions(self) -> tuple[Convolution, ...]:
        """Return the convolutions that can carry an adapter, from the image on."""

    def placed(self, placement: Placement) -> Placement:
        """Return a placement with all of its names.

        Raises:
          ValueError: it names what this backbone does not have.
        """
        for what, found, known in (
            ("stages", placement.stages, self.stages),
            ("convs", placement.convs, self.convs),
        ):
            check(what, found, PLACED)
            if unknown := [name for name in found or () if name not in known]:
                raise ValueError(
                    f"found {what} {unknown}; expected some of {list(known)} ({self.name})."
                )
        stages = self.stages if placement.stages is None else tuple(placement.stages)
        usual = self.convs if self.usual_convs is None else self.usual_convs
        return Placement(stages, usual if placement.convs is None else tuple(placement.convs))

    def rule_of(self, norm: str) -> NormRule:
        """Return the rule of one norm, from its path."""
        return self.norm

    def example_side(self) -> int:
        """Return the side of images, in pixels, at which shapes of variables are taken."""
        return self.multiple_of * -(-LARGE_ENOUGH // self.multiple_of)

    def initial(self, seed: int) -> Mapping[str, Any]:
        """Return first values, by collection and path, of variables that `start` knows nothing of.

        They may belong to any class count.
        """
        return {}

    def start(self, path: str) -> str | None:
        """Return how a variable starts, as a name in `nn.starts.STARTS`.

        None: it starts as `initial` says. What adapters add is not asked for, but for the norms
        inside them.
        """
        *_, parent, leaf = path.split("/")
        if leaf in BY_LEAF:
            return BY_LEAF[leaf]
        return "head" if parent == "head" else "he_normal"

    def check_sides(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless images of this shape, (b, h, w, 3), can be seen."""
        step = self.multiple_of
        if len(shape) != 4 or shape[-1] != 3 or shape[1] % step or shape[2] % step:
            raise ValueError(
                f"found images of shape {shape}; expected (batch, height, width, 3) with sides "
                f"that are multiples of {step} ({self.name})."
            )

    def __str__(self) -> str:
        options = dataclasses.asdict(self).items()
        return ", ".join([self.name, *(f"{option} {it}" for option, it in options)])

    def to_json(self) -> dict[str, Any]:
        """Return name and options as JSON values; `registry.from_json` undoes it."""
        return {"name": self.name, **dataclasses.asdict(self)}
