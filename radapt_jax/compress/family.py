"""Compression of a family: its dense adapters become low-rank, each domain alone or all jointly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax.adapters.base import NAME, by_convolution, carriers, of_adapter
from radapt_jax.adapters.ranks import Ranks
from radapt_jax.adapters.registry import KINDS, make_options, of_kind
from radapt_jax.compress.ranks import RankRule, spectra
from radapt_jax.compress.svd import Matrices, joint_svd, project, truncate
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.utils import trees


def targets() -> list[str]:
    """Return the adapter kinds that dense adapters can be compressed to."""
    return [name for name, kind in KINDS.items() if kind.factors]


def sources() -> list[str]:
    """Return the adapter kinds that can be compressed."""
    return sorted({str(KINDS[name].compresses) for name in targets()}, key=list(KINDS).index)


def factors_of(kind: str) -> tuple[str, str]:
    """Return the names of the variables β and γ of a kind in `targets()`.

    Raises:
      KeyError: there is no such kind.
    """
    found = KINDS[kind].factors
    assert found is not None
    return found


def compressible(family: Family, kind: str = "joint") -> list[str]:
    """Return the names of the domains on the shared weights that can become a kind of `targets`."""
    return [
        name
        for name in family.domains
        if family[name].spec.adapter.kind == KINDS[kind].compresses
        and not family[name].has_own_weights
    ]


def kernels(member: Member) -> Matrices:
    """Return what can be compressed of a domain by convolution, each (rows, outputs).

    That is α of parallel adapters, A - 1 of modulation, and the product of low-rank convolutions.

    Raises:
      ValueError: it has no such adapters.
    """
    leaves, kind = trees.flatten(member.variables["adapters"]), member.spec.kind
    found = {
        conv: kind.matrix(of_adapter(leaves, conv), member.spec.adapter)
        for conv in sorted(carriers(leaves))
    }
    if not found or any(matrix is None for matrix in found.values()):
        raise ValueError(
            f"domain {member.domain.name!r}: found adapter {member.spec.adapter.kind!r}; expected "
            f"one of {sources()}, which can be compressed."
        )
    return {conv: np.asarray(matrix) for conv, matrix in found.items()}


def alphas_of(
    family: Family, domains: Sequence[str] | None = None, *, kind: str = "joint"
) -> dict[str, Matrices]:
    """Return what is to be compressed to a kind of `targets()`, by domain; see `kernels`.

    Args:
      family: with the domains.
      domains: their names; default: all that can be.
      kind: what they are to become.

    Raises:
      KeyError: there is no such domain.
      ValueError: there are none, or a domain has adapters that cannot become that kind.
    """
    names = compressible(family, kind) if domains is None else domains
    wanted = KINDS[kind].compresses
    kinds = {name: family[name].spec.adapter.kind for name in names or family}
    if not names:
        raise ValueError(
            f"found no domain with {wanted} adapters to compress to {kind}; there are {kinds}."
        )
    if others := {name: it for name, it in kinds.items() if it != wanted}:
        raise ValueError(
            f"found {others} to compress to {kind}; expected {wanted} adapters. "
            + " ".join(map(_advice, sorted(set(others.values()))))
        )
    return {name: kernels(family[name]) for name in names}


def _advice(kind: str) -> str:
    """Return what can be done with domains of a kind."""
    fitting = [name for name in targets() if KINDS[name].compresses == kind]
    if fitting:
        return f"Compress {kind} to {' or '.join(fitting)}."
    if not KINDS[kind].leaves:
        return "Without adapters there is nothing to compress."
    return (
        f"{kind.capitalize()} adapters have no matrix that a product of low rank could stand for."
    )


def svd(
    domain: Member | Mapping[str, np.ndarray], rank: Ranks | int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Compress one domain alone: α ≈ β γᵀ, the best approximation of each rank.

    Args:
      domain: one with dense adapters, or only the adapters: `{convolution: α}`.
      rank: one number for all layers (limited to the full rank), a share of the full rank (a float
        in (0, 1]), or ranks by convolution.

    Returns:
      `{convolution: (β, γᵀ)}` of shapes (inputs, K) and (K, outputs).

    Raises:
      ValueError: there are no dense adapters, or a rank or share is missing or out of range.
    """
    return truncate(kernels(domain) if isinstance(domain, Member) else dict(domain), rank)


def compress_family(
    family: Family, kind: str, ranks: RankRule, *, domains: Sequence[str] | None = None
) -> Family:
    """Return a family with compressed adapters; nothing is trained.

    Args:
      family: with dense adapters; it stays unchanged.
      kind: what they become, one of `targets()`: "joint" (one β for all domains, in the shared
        weights) or "low_rank" (each has its own) of parallel adapters; "modulation_joint" or
        "modulation_low_rank" of A - 1 of modulation; "conv_lora_joint", or "conv_lora" of lower
        rank, of low-rank convolutions.
      ranks: see `rank_rule`; it gets the spectra of all domains together ("joint"), or of each
        domain alone ("low_rank").
      domains: which to compress (default: all that can be). The others stay unchanged.

    Raises:
      KeyError: there is no such domain.
      ValueError: there is nothing to compress, the kind is unknown, or the family already shares a
        β.
    """
    if kind not in targets():
        raise ValueError(f"found compression {kind!r}; expected one of {targets()}.")
    if family.shared.basis is not None:
        raise ValueError("this family is compressed jointly already; start from the dense one.")
    alphas = alphas_of(family, domains, kind=kind)
    kept = [family[name] for name in family if name not in alphas]
    beta, gamma = factors_of(kind)
    if not KINDS[kind].leaves[beta].shared:
        return Family(family.shared, [*kept, *_each(family, kind, alphas, ranks)])
    chosen = _integers(ranks(spectra(list(alphas.values()))))
    betas, gammas = joint_svd(alphas, chosen)
    shared = dataclasses.replace(
        family.shared,
        params=with_leaves(family.shared.params, _placed({beta: betas})),
        basis=make_options(kind, ranks=chosen),
    )
    members = [with_factors(family[name], kind, chosen, {gamma: gammas[name]}) for name in alphas]
    return Family(shared, [*kept, *members])


def _each(
    family: Family, kind: str, alphas: Mapping[str, Matrices], ranks: RankRule
) -> list[Member]:
    """Compress each domain alone; a budget counts for all of them together."""
    own_spectra = {
        (name, conv): spectrum
        for name, own in alphas.items()
        for conv, spectrum in spectra([own]).items()
    }
    labels = {f"{name}: {conv}": (name, conv) for name, conv in own_spectra}
    chosen = _integers(ranks({label: own_spectra[key] for label, key in labels.items()}))
    beta, gamma = factors_of(kind)
    members = []
    for name, own in alphas.items():
        mine = {conv: chosen[f"{name}: {conv}"] for conv in own}
        pairs = truncate(own, mine)
        found = {
            beta: {conv: pair[0] for conv, pair in pairs.items()},
            gamma: {conv: pair[1] for conv, pair in pairs.items()},
        }
        members.append(with_factors(family[name], kind, mine, found))
    return members


def _integers(ranks: Mapping[str, int]) -> dict[str, int]:
    """Return ranks as Python integers, for the card; a rule may return NumPy's."""
    return {conv: int(rank) for conv, rank in ranks.items()}


def _placed(leaves: Mapping[str, Matrices]) -> dict[str, np.ndarray]:
    """Return `{leaf: {convolution: matrix}}` as adapters' variables by path."""
    return {
        f"{conv}/{NAME}/{leaf}": np.asarray(matrix)
        for leaf, matrices in leaves.items()
        for conv, matrix in matrices.items()
    }


def with_leaves(
    tree: trees.Tree, leaves: Mapping[str, Any], *, drop: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a collection with `leaves` added, and without those whose paths end in `drop`."""
    kept = {path: leaf for path, leaf in trees.flatten(tree).items() if not path.endswith(drop)}
    return trees.unflatten({**kept, **leaves})


def with_factors(
    member: Member, kind: str, ranks: Mapping[str, int], leaves: Mapping[str, Matrices]
) -> Member:
    """Return a member with factors, `{leaf: {convolution: matrix}}`, in place of dense adapters."""
    adapters = with_leaves(
        member.variables["adapters"],
        _placed(leaves),
        drop=tuple(f"/{NAME}/{leaf}" for leaf in member.spec.kind.leaves),
    )
    options = of_kind(member.spec.adapter, kind, ranks=ranks)
    return dataclasses.replace(
        member.changed(adapters=adapters),
        spec=dataclasses.replace(member.spec, adapter=options),
        method=kind,
        shared=None,
        results={},
    )


def join(family: Family, member: Member) -> tuple[Member, float]:
    """Express a dense domain in the β of a jointly compressed family, by least squares.

    Args:
      family: a jointly compressed one.
      member: a domain with dense adapters, trained on the same filters.

    Returns:
      The member with γ in place of α, ready to be added to the family and fine-tuned, and its
      relative error ‖α - β γᵀ‖ / ‖α‖.

    Raises:
      ValueError: the family shares no β, or the member has no dense adapters, was trained on other
        filters or has adapters on other convolutions.
    """
    basis: Any = family.shared.basis
    if basis is None:
        raise ValueError("this family shares no β; compress it jointly first: configs/compress.py.")
    if member.shared not in (None, family.fingerprint):
        raise ValueError(
            f"domain {member.domain.name!r} was trained on filters of sha256 "
            f"{str(member.shared)[:12]}..., but the family has {family.fingerprint[:12]}.... Train "
            "it on this family's filters."
        )
    beta, gamma = factors_of(basis.kind)
    found, wanted = member.spec.adapter.kind, KINDS[basis.kind].compresses
    if found != wanted:
        raise ValueError(
            f"domain {member.domain.name!r} has {found} adapters; expected {wanted}, which this "
            f"family's {basis.kind} adapters stand for."
        )
    alphas = kernels(member)
    betas = by_convolution(trees.flatten(family.shared.params), beta)
    if alphas.keys() != betas.keys():
        raise ValueError(
            f"domain {member.domain.name!r} has adapters on other convolutions than the family's "
            f"β: {sorted(alphas.keys() ^ betas.keys())[:3]} are on one side only. Train it with "
            "the family's stages and convs."
        )
    gammas, error = project(alphas, betas)
    return with_factors(member, basis.kind, basis.ranks, {gamma: gammas}), error
