"""Compression of a whole family: its parallel adapters become low-rank, alone or jointly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax import compress
from radapt_jax.compress import Matrices, Spectrum
from radapt_jax.family import Family
from radapt_jax.member import Member

RankRule = Callable[[Mapping[str, Spectrum]], Mapping[str, int]]
KINDS = ("joint", "low_rank")


def rank_rule(how: str, *, share: float = 0.5, energy: float = 0.9, budget: int = 0) -> RankRule:
    """Return the function that chooses ranks from spectra.

    Args:
      how: "uniform" (K = share · C), "energy" (the smallest K that keep a share of each layer's
        energy) or "budget" (the most energy for a number of parameters).
      share, energy: as above, in (0, 1].
      budget: parameters of all β and γ; 0: as many as "uniform" takes.

    Raises:
      ValueError: an unknown rule.
    """
    rules: Mapping[str, RankRule] = {
        "uniform": lambda spectra: compress.uniform_ranks(spectra, share),
        "energy": lambda spectra: compress.energy_ranks(spectra, energy),
        "budget": lambda spectra: compress.budget_ranks(
            spectra,
            budget or compress.parameters(spectra, compress.uniform_ranks(spectra, share)),
        ),
    }
    if how not in rules:
        raise ValueError(f"found rank rule {how!r}; expected one of {sorted(rules)}.")
    return rules[how]


def compressible(family: Family) -> list[str]:
    """Return the domains with parallel adapters on the shared weights."""
    return [
        name
        for name in family.domains
        if family[name].spec.adapter == "parallel" and not family[name].has_own_weights
    ]


def alphas_of(family: Family, domains: Sequence[str] | None = None) -> dict[str, Matrices]:
    """Return the dense adapter kernels of domains (default: all that have them).

    Raises:
      ValueError: there are none.
    """
    names = compressible(family) if domains is None else domains
    if not names:
        kinds = {name: family[name].spec.adapter for name in family}
        raise ValueError(f"found no domain with parallel adapters to compress; there are {kinds}.")
    return {name: compress.kernels(family[name].variables["adapters"]) for name in names}


def compress_family(
    family: Family, kind: str, ranks: RankRule, *, domains: Sequence[str] | None = None
) -> Family:
    """Return a family with compressed adapters; nothing is trained.

    Args:
      family: with parallel adapters; stays as it is.
      kind: "joint" (one β for all domains, in the shared weights) or "low_rank" (each its own).
      ranks: see `rank_rule`; sees the spectra of all domains together, or of each alone.
      domains: which to compress (default: all with parallel adapters). The others are kept as
        they are.

    Raises:
      ValueError: nothing to compress, an unknown kind, or a family that shares β already.
    """
    if kind not in KINDS:
        raise ValueError(f"found compression {kind!r}; expected one of {list(KINDS)}.")
    if family.shared.ranks:
        raise ValueError("this family is compressed jointly already; start from the dense one.")
    alphas = alphas_of(family, domains)
    kept = [family[name] for name in family if name not in alphas]
    if kind == "low_rank":
        return Family(family.shared, [*kept, *_each(family, alphas, ranks)])
    chosen = _integers(ranks(compress.spectra(list(alphas.values()))))
    betas, gammas = compress.joint_svd(alphas, chosen)
    params = compress.with_leaves(
        family.shared.params, {f"{conv}/adapter/beta": beta for conv, beta in betas.items()}
    )
    shared = dataclasses.replace(family.shared, params=params, ranks=chosen)
    members = [
        with_factors(family[name], "joint", chosen, {"gamma": gammas[name]}) for name in alphas
    ]
    return Family(shared, [*kept, *members])


def _each(family: Family, alphas: Mapping[str, Matrices], ranks: RankRule) -> list[Member]:
    """Compress every domain alone; a budget is for all of them together."""
    spectra = {
        (name, conv): spectrum
        for name, own in alphas.items()
        for conv, spectrum in compress.spectra([own]).items()
    }
    labels = {f"{name}: {conv}": (name, conv) for name, conv in spectra}
    chosen = _integers(ranks({label: spectra[key] for label, key in labels.items()}))
    members = []
    for name, own in alphas.items():
        mine = {conv: chosen[f"{name}: {conv}"] for conv in own}
        factors = compress.svd(own, mine)
        betas = {conv: beta for conv, (beta, _) in factors.items()}
        gammas = {conv: gamma for conv, (_, gamma) in factors.items()}
        members.append(
            with_factors(family[name], "low_rank", mine, {"beta": betas, "gamma": gammas})
        )
    return members


def _integers(ranks: Mapping[str, int]) -> dict[str, int]:
    """Return ranks as Python's integers, which a card can hold; a rule may give NumPy's."""
    return {conv: int(rank) for conv, rank in ranks.items()}


def with_factors(
    member: Member, kind: str, ranks: Mapping[str, int], factors: Mapping[str, Matrices]
) -> Member:
    """Return a member whose dense adapters are replaced by factors ("beta", "gamma")."""
    leaves: dict[str, Any] = {
        f"{conv}/adapter/{factor}": np.asarray(matrix)
        for factor, matrices in factors.items()
        for conv, matrix in matrices.items()
    }
    adapters = compress.with_leaves(member.variables["adapters"], leaves, drop=compress.SUFFIX)
    return dataclasses.replace(
        member,
        spec=dataclasses.replace(member.spec, adapter=kind, ranks=dict(ranks)),
        variables={**member.variables, "adapters": adapters},
        method=kind,
        shared=None,
        results={},
    )


def join(family: Family, member: Member) -> tuple[Member, float]:
    """Express a dense domain in the β of a jointly compressed family, by least squares.

    Args:
      family: jointly compressed.
      member: with parallel adapters, trained on the same filters.

    Returns:
      The member with γ in place of α, to be added to the family and fine-tuned, and the relative
      error ‖α - β γᵀ‖ / ‖α‖ that it starts with.

    Raises:
      ValueError: the family shares no β, or the member belongs to other filters.
    """
    if not family.shared.ranks:
        raise ValueError("this family shares no β; compress it jointly first: configs/compress.py.")
    if member.shared not in (None, family.fingerprint):
        raise ValueError(
            f"domain {member.domain.name!r} was trained on filters of sha256 "
            f"{str(member.shared)[:12]}..., the family has {family.fingerprint[:12]}...."
        )
    alphas = compress.kernels(member.variables["adapters"])
    betas = compress.betas(family.shared.params)
    if alphas.keys() != betas.keys():
        raise ValueError(
            f"domain {member.domain.name!r} has adapters on other convolutions than the family's "
            f"β: {sorted(alphas.keys() ^ betas.keys())[:3]}."
        )
    gammas, error = compress.project(alphas, betas)
    return with_factors(member, "joint", family.shared.ranks, {"gamma": gammas}), error
