"""One line of results: what was evaluated, on which images, and how well."""

from __future__ import annotations

import dataclasses

from radapt_jax.data.decathlon.facts import decathlon_name
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of the final table.

    Args:
      domain: its name.
      method: how it was trained.
      classes: class count.
      images: count of training images.
      split: what it was evaluated on.
      count: of the images evaluated.
      top1: in percent; None: not evaluated.
      parameters: how many the domain brings, head included.
      ratio: its parameters over the backbone's, without heads.
      basis: parameters of the β that jointly compressed domains share, over the backbone's.
      source: whether this is the source domain, which brings the shared weights.
      trained_on: which training images were used, e.g. "train" or "10 % of train".
      challenge: the Visual Decathlon's name of a domain with its images, or None.
    """

    domain: str
    method: str
    classes: int
    images: int
    split: str
    count: int
    top1: float | None
    parameters: int
    ratio: float
    basis: float = 0.0
    source: bool = False
    trained_on: str = "train"
    challenge: str | None = None


def shown_split(split: str, crops: int) -> str:
    """Return how a table describes the images that were evaluated."""
    return split if crops == 1 else f"{split}, {crops} crops"


def row_of(family: Family, name: str, split: str, count: int, top1: float | None) -> Result:
    """Return the result of one domain.

    Args:
      family: with the domain.
      name: of the domain.
      split: what it was evaluated on.
      count: of the images evaluated.
      top1: in percent; None: not evaluated.

    Raises:
      KeyError: there is no such domain.
    """
    member = family[name]
    return Result(
        domain=name,
        method=member.method,
        classes=member.domain.num_classes,
        images=member.images.get("train", 0),
        split=split,
        count=count,
        top1=top1,
        parameters=family.parameters(name),
        ratio=family.ratio(name),
        basis=family.shared.basis_parameters() / family.shared.backbone_parameters(),
        source=name == family.shared.source,
        trained_on=_trained_on(member),
        challenge=challenge_name(member),
    )


def _trained_on(member: Member) -> str:
    """Return which training images were used, in words."""
    spec = member.data
    if spec is None:
        return "train"
    share = "" if spec.train_fraction == 1 else f"{100 * spec.train_fraction:g} % of "
    most = f", {spec.images_per_class} a class" if spec.images_per_class else ""
    return f"{share}{spec.train_on}{most}"


def challenge_name(member: Member) -> str | None:
    """Return the Visual Decathlon's name of a domain that has the challenge's images, or None."""
    if member.data is None or member.data.source != "decathlon":
        return None
    return decathlon_name(member.data.dataset or member.data.name)
