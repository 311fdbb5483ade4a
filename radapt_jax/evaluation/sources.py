"""Where the images of a domain are, as its card says, or as somebody says now."""

from __future__ import annotations

import dataclasses
import logging

from radapt_jax.data.load import NothingToEvaluate
from radapt_jax.data.sources.source import Source
from radapt_jax.data.spec import DataSpec
from radapt_jax.family.member import Member

log = logging.getLogger(__name__)


def open_source(
    member: Member, data_dir: str | None = None, *, or_in: str | None = None
) -> tuple[DataSpec, Source]:
    """Return a domain's data spec, and the source of its images.

    Args:
      member: the domain.
      data_dir: where the images are; default: where its card says.
      or_in: where they are if they are not there.

    Raises:
      FileNotFoundError: they are not there.
      NothingToEvaluate: the card does not say where they are, or what is there cannot be read as
        images in classes, or has other classes.
    """
    try:
        return _opened(member, data_dir)
    except FileNotFoundError as missing:
        if or_in is None:
            raise
        try:
            found = _opened(member, or_in)
        except FileNotFoundError:
            raise missing from None
    log.info("%s: images in %s, as they are not where its card says", member.domain.name, or_in)
    return found


def _opened(member: Member, data_dir: str | None) -> tuple[DataSpec, Source]:
    name, spec = member.domain.name, member.data
    if spec is None:
        raise NothingToEvaluate(
            f"domain {name!r}: its card does not say where its images are; use `predict`."
        )
    if data_dir is not None:
        spec = dataclasses.replace(spec, dir=data_dir)
    if not spec.dir and spec.source != "embedded":
        raise FileNotFoundError(
            f"domain {name!r} came as a file, which does not say where its images are; expected a "
            f"folder with those of {spec.dataset or spec.name!r} (source of images: "
            f"{spec.source!r}). Say where they are: --data_dir DIR."
        )
    try:
        source = spec.open()
    except ValueError as error:
        raise NothingToEvaluate(f"domain {name!r}: {error}") from error
    if source.classes != member.domain.classes:
        raise NothingToEvaluate(
            f"domain {name!r}: found classes {list(source.classes[:3])}... "
            f"({len(source.classes)}), trained with {list(member.domain.classes[:3])}... "
            f"({member.domain.num_classes}). These are not the images it was trained on; say where "
            "those are: --data_dir DIR."
        )
    return spec, source
