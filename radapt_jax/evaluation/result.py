"""One line of results: what was evaluated, on which images, and how well."""

from __future__ import annotations

import dataclasses

from radapt_jax.data.decathlon.facts import decathlon_name
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of the final table.

    `challenge` is the name of the Visual Decathlon for a domain with its images, or None. `images`
    counts the training images, which are of the splits `trained_on`, and `count` those
    evaluated, on `split`; `top1` (percent) is None where
    the images are not there. `ratio` is over the backbone's parameters, heads apart, and `basis`
    that of the β that the family's jointly compressed domains share. `source` marks the domain
    that brings the shared weights.
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
    """Return what a table says of the images that were evaluated."""
    return split if crops == 1 else f"{split}, {crops} crops"


def row_of(family: Family, name: str, split: str, count: int, top1: float | None) -> Result:
    """Return the line of one domain, given how many images of `split` were how well predicted."""
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
    """Return which training images were used."""
    spec = member.data
    if spec is None:
        return "train"
    share = "" if spec.train_fraction == 1 else f"{100 * spec.train_fraction:g} % of "
    most = f", {spec.images_per_class} a class" if spec.images_per_class else ""
    return f"{share}{spec.train_on}{most}"


def challenge_name(member: Member) -> str | None:
    """Return the Visual Decathlon's name of a domain, if its images are the challenge's."""
    if member.data is None or member.data.source != "decathlon":
        return None
    return decathlon_name(member.data.dataset or member.data.name)
