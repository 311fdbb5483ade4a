"""What the server's addresses answer with, as pydantic models: also the OpenAPI description."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic

from radapt_jax.serve.engine import Answer
from radapt_jax.serve.facts import Facts


class Guess(pydantic.BaseModel):
    """A class of a domain, and its probability."""

    name: str
    probability: float


class Prediction(pydantic.BaseModel):
    """Answers of one domain, an entry an image: its most probable classes first."""

    domain: str
    sha256: str = pydantic.Field(description="of the domain's variables, its version")
    images: list[list[Guess]]


class DomainFacts(pydantic.BaseModel):
    """A domain that is served."""

    name: str
    classes: list[str]
    size: int = pydantic.Field(description="side that the network sees, in pixels")
    parameters: int
    adapter: str
    sha256: str
    card: dict[str, Any] = pydantic.Field(description="facts of its training")


class Domains(pydantic.BaseModel):
    """All domains that are served."""

    backbone: str
    changeable: bool = pydantic.Field(description="whether there is a token for PUT and DELETE")
    domains: list[DomainFacts]


class Changed(pydantic.BaseModel):
    """What became of a domain."""

    name: str
    sha256: str
    done: str = pydantic.Field(description="added, replaced, unchanged or deleted")


class Told(pydantic.BaseModel):
    """Why a request was refused: what was found, and what was expected."""

    detail: str


def shown(found: Any) -> Any:
    """Return facts of a card as JSON can have them.

    Names of files, and so of classes, may have bytes that are no text; they become escapes.
    """
    if isinstance(found, str):
        return found.encode("utf-8", "backslashreplace").decode()
    if isinstance(found, dict):
        return {shown(key): shown(it) for key, it in found.items()}
    if isinstance(found, list | tuple):
        return [shown(it) for it in found]
    return found


def facts_of(facts: Facts) -> DomainFacts:
    """Return what anybody may know of a domain."""
    return DomainFacts(
        name=facts.name,
        classes=shown(facts.domain.classes),
        size=facts.domain.size,
        parameters=facts.card["parameters"],
        adapter=facts.key.spec.adapter.kind,
        sha256=facts.version,
        card=shown(facts.public()),
    )


def prediction_of(answers: list[Answer], top: int) -> Prediction:
    """Return the `top` classes of every image of some answers of one version of a domain."""
    facts = answers[0].facts
    names = facts.domain.classes
    found = []
    for row in np.concatenate([it.probabilities for it in answers]):
        best = np.argsort(-row, kind="stable")[:top]
        found.append([Guess(name=shown(names[k]), probability=float(row[k])) for k in best])
    return Prediction(domain=facts.name, sha256=facts.version, images=found)
