"""Compression of a family: its dense adapters become low-rank, each domain alone or all jointly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from radapt_jax.adapters.factors import WithRank
from radapt_jax.adapters.ranks import Ranks
from radapt_jax.adapters.registry import KINDS, make_options
from radapt_jax.compress.fits import Fitting
from radapt_jax.compress.moments import Moments
from radapt_jax.compress.ranks import RankRule, spectra
from radapt_jax.compress.replace import placed, with_factors, with_leaves
from radapt_jax.compress.svd import Matrices, truncate
from radapt_jax.compress.which import alphas_of, factors_of, kernels, targets
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member


def svd(
    domain: Member | Mapping[str, np.ndarray], rank: Ranks | int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Compress one domain alone: α ≈ β γᵀ, the best approximation of each rank.

    Args:
      domain: one with dense adapters, or only the adapters: `{convolution: α}`.
      rank: one number for all layers (limited to the full rank), a share of the full rank (a float
        in (0, 1]), or ranks by convolution.

    Returns:
      By convolution (β, γᵀ), of shapes (inputs, K) and (K, outputs).

    Raises:
      ValueError: there are no dense adapters, or a rank or share is missing or out of range.
    """
    return truncate(kernels(domain) if isinstance(domain, Member) else dict(domain), rank)


def compress_family(
    family: Family,
    kind: str,
    ranks: RankRule,
    *,
    domains: Sequence[str] | None = None,
    moments: Mapping[str, Moments] | None = None,
    fit: str | None = None,
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
      moments: of each of these domains, by name, so that what matters least is lost; see
        `moments_of`. Of parallel adapters alone.
      fit: "svd", the best approximation of the adapters themselves; with moments, "whitened", the
        best one with the mean S of all domains, or "alternating", with each domain's own. Default:
        "svd", or "alternating" with moments. Of one domain alone, the last two are the same.

    Raises:
      KeyError: there is no such domain.
      ValueError: there is nothing to compress, the kind or the fit is unknown, the family already
        shares a β, or moments are missing.
    """
    if kind not in targets():
        raise ValueError(f"found compression {kind!r}; expected one of {targets()}.")
    if family.shared.basis is not None:
        raise ValueError("this family is compressed jointly already; start from the dense one.")
    alphas = alphas_of(family, domains, kind=kind)
    fitting = Fitting.of(fit, moments, alphas)
    kept = [family[name] for name in family if name not in alphas]
    beta, gamma = factors_of(kind)
    if not KINDS[kind].leaves[beta].shared:
        return Family(family.shared, [*kept, *_each(family, kind, alphas, ranks, fitting)])
    highest = ranks_of(family, alphas)
    chosen = _integers(ranks(spectra(list(fitting.weighed(alphas).values()), highest)))
    betas, gammas = fitting.factors(alphas, chosen)
    shared = dataclasses.replace(
        family.shared,
        params=with_leaves(family.shared.params, placed({beta: betas})),
        basis=make_options(kind, ranks=chosen),
    )
    members = [with_factors(family[name], kind, chosen, {gamma: gammas[name]}) for name in alphas]
    return Family(shared, [*kept, *members])


def _each(
    family: Family,
    kind: str,
    alphas: Mapping[str, Matrices],
    ranks: RankRule,
    fitting: Fitting,
) -> list[Member]:
    """Compress each domain alone; a budget counts for all of them together."""
    own_spectra = {
        (name, conv): spectrum
        for name, own in alphas.items()
        for conv, spectrum in spectra(
            [fitting.weighed({name: own})[name]], ranks_of(family, [name])
        ).items()
    }
    labels = {f"{name}: {conv}": (name, conv) for name, conv in own_spectra}
    chosen = _integers(ranks({label: own_spectra[key] for label, key in labels.items()}))
    beta, gamma = factors_of(kind)
    members = []
    for name, own in alphas.items():
        mine = {conv: chosen[f"{name}: {conv}"] for conv in own}
        betas, gammas = fitting.factors({name: own}, mine)
        found = {beta: betas, gamma: gammas[name]}
        members.append(with_factors(family[name], kind, mine, found))
    return members


def ranks_of(family: Family, names: Iterable[str]) -> dict[str, int]:
    """Return the ranks that domains' adapters have together, by convolution; {}: full ones.

    Args:
      family: with the domains.
      names: theirs.
    """
    total: dict[str, int] = {}
    for spec in (family[name].spec for name in names):
        if issubclass(spec.kind, WithRank):
            for site in spec.sites():
                rank = spec.kind.rank(spec.adapter, site)
                total[site.conv] = total.get(site.conv, 0) + rank
    return total


def _integers(ranks: Mapping[str, int]) -> dict[str, int]:
    """Return ranks as Python integers, for the card; a rule may return NumPy's."""
    return {conv: int(rank) for conv, rank in ranks.items()}
