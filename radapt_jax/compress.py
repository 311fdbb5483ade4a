"""Low-rank and joint compression of parallel adapters (CVPR 2018, section 3.4).

All functions take adapter kernels as `{convolution: α}` with α of shape (inputs, outputs), the
matrix of x ↦ x α, and ranks as `{convolution: K}`.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from radapt_jax import trees
from radapt_jax.adapters import Ranks, rank_of
from radapt_jax.values import check, whole

Matrices = dict[str, np.ndarray]
SUFFIX = "/adapter/kernel"


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Singular values of one layer's adapters, and what one more rank costs there.

    Args:
      values: in descending order, as many as the full rank.
      cost: parameters of one rank over all domains: inputs + domains · outputs.
    """

    values: np.ndarray
    cost: int


def kernels(adapters: trees.Tree) -> Matrices:
    """Return the dense adapter kernels in an `adapters` collection, by convolution.

    Raises:
      ValueError: there are none (other kinds than parallel have none that could be compressed).
    """
    found = {
        path.removesuffix(SUFFIX): np.asarray(leaf)
        for path, leaf in trees.flatten(adapters).items()
        if path.endswith(SUFFIX)
    }
    if not found:
        raise ValueError("found no adapter kernel; expected a domain with parallel adapters.")
    return found


def betas(params: trees.Tree) -> Matrices:
    """Return the β in a `params` collection, by convolution."""
    return {
        path.removesuffix("/adapter/beta"): np.asarray(leaf)
        for path, leaf in trees.flatten(params).items()
        if path.endswith("/adapter/beta")
    }


def factorise(matrices: Matrices) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return U, singular values and Vᵀ of each matrix; one batched SVD for each shape."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, matrix in matrices.items():
        by_shape.setdefault(matrix.shape, []).append(name)
    found: dict[str, Any] = {}
    for names in by_shape.values():
        stack = jnp.stack([jnp.asarray(matrices[name]) for name in names])
        parts = [np.asarray(part) for part in jnp.linalg.svd(stack, full_matrices=False)]
        found |= {name: tuple(part[row] for part in parts) for row, name in enumerate(names)}
    return {name: found[name] for name in matrices}


def svd(domain: Any, rank: Ranks | int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Compress one domain alone: α ≈ β γᵀ, the best approximation of each rank.

    Args:
      domain: a `Member` with parallel adapters, or `{convolution: α}`.
      rank: one number for all layers, from 1 (at most the full rank is taken), a share of the full
        rank (a float in (0, 1]), or ranks by convolution.

    Returns:
      `{convolution: (β, γᵀ)}` of shapes (inputs, K) and (K, outputs).

    Raises:
      ValueError: no dense adapters, or a rank or share out of range.
    """
    if isinstance(rank, numbers.Integral):
        check("rank", rank, whole(1))
        rank = int(rank)
    alphas = kernels(domain.variables["adapters"]) if hasattr(domain, "variables") else domain
    found = {}
    for name, (u, s, vt) in factorise(alphas).items():
        k = min(rank, len(s)) if isinstance(rank, int) else rank_of(rank, name, *alphas[name].shape)
        found[name] = (u[:, :k] * s[:k], vt[:k])
    return found


def stack(domains: Sequence[Matrices]) -> Matrices:
    """Return [α_1 ... α_T] of each convolution, (inputs, T · outputs).

    Raises:
      ValueError: the domains do not have adapters on the same convolutions.
    """
    first = domains[0]
    for other in domains[1:]:
        if other.keys() != first.keys():
            differing = sorted(other.keys() ^ first.keys())
            raise ValueError(
                f"found adapters on different convolutions ({differing[:3]} are not in all "
                "domains); joint compression needs the same stages and convs everywhere."
            )
    return {name: np.concatenate([alphas[name] for alphas in domains], 1) for name in first}


def joint_svd(
    domains: Mapping[str, Matrices], ranks: Mapping[str, int]
) -> tuple[Matrices, dict[str, Matrices]]:
    """Compress several domains together: α_t ≈ β γ_tᵀ with β = U Σ shared by all.

    Returns:
      `{convolution: β}`, (inputs, K), and `{domain: {convolution: γᵀ}}`, (K, outputs).
    """
    shared: Matrices = {}
    gammas: dict[str, Matrices] = {domain: {} for domain in domains}
    for name, (u, s, vt) in factorise(stack(list(domains.values()))).items():
        rank = ranks[name]
        shared[name] = u[:, :rank] * s[:rank]
        for domain, part in zip(domains, np.split(vt[:rank], len(domains), 1), strict=True):
            gammas[domain][name] = np.ascontiguousarray(part)
    return shared, gammas


def project(alphas: Matrices, betas: Matrices) -> tuple[Matrices, float]:
    """Express a domain's dense adapters in a family's β: least squares, layer by layer.

    Returns:
      `{convolution: γᵀ}` and the relative error ‖α - β γᵀ‖ / ‖α‖ over all layers.
    """
    gammas = {
        name: np.linalg.lstsq(betas[name], alpha, rcond=None)[0] for name, alpha in alphas.items()
    }
    lost = sum(float(np.square(alphas[n] - betas[n] @ gammas[n]).sum()) for n in alphas)
    whole = sum(float(np.square(alpha).sum()) for alpha in alphas.values())
    return gammas, float(np.sqrt(lost / whole)) if whole else 0.0


def spectra(domains: Sequence[Matrices]) -> dict[str, Spectrum]:
    """Return the spectrum of each convolution's stacked adapters; of one domain, of its own."""
    found = {}
    for name, (u, s, _) in factorise(stack(domains)).items():
        outputs = domains[0][name].shape[1]
        full = min(u.shape[0], outputs)
        cost = u.shape[0] + len(domains) * outputs
        found[name] = Spectrum(s[:full], cost)
    return found


def uniform_ranks(spectra: Mapping[str, Spectrum], share: float = 0.5) -> dict[str, int]:
    """Return K = share · C for every layer of full rank C; the paper's share is 1/2."""
    return {
        name: rank_of(share, name, len(it.values), len(it.values)) for name, it in spectra.items()
    }


def energy_ranks(spectra: Mapping[str, Spectrum], energy: float) -> dict[str, int]:
    """Return for every layer the smallest K that keeps a share of its squared singular values."""
    if not 0 < energy <= 1:
        raise ValueError(f"found an energy share of {energy}; expected one in (0, 1].")
    found = {}
    for name, spectrum in spectra.items():
        kept = np.cumsum(np.square(spectrum.values.astype(np.float64)))
        enough = np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12)) + 1
        found[name] = int(min(enough, len(spectrum.values)))
    return found


def budget_ranks(spectra: Mapping[str, Spectrum], budget: int) -> dict[str, int]:
    """Choose the ranks of all layers together, so that the kept energy is largest.

    Ranks are taken in the order of energy per parameter, as long as they fit: at most the energy
    of one rank below the optimum. Every layer gets one rank at least.

    Args:
      budget: parameters of all β and γ, over all domains.

    Raises:
      ValueError: the budget is below one rank a layer.
    """
    least = sum(spectrum.cost for spectrum in spectra.values())
    if budget < least:
        raise ValueError(
            f"found a budget of {budget:,} parameters; expected at least {least:,}, one rank for "
            f"each of {len(spectra)} layers."
        )
    ranks = dict.fromkeys(spectra, 1)
    left = budget - least
    gains = [
        (float(value) ** 2 / spectrum.cost, name)
        for name, spectrum in spectra.items()
        for value in spectrum.values[1:]
    ]
    full = set()
    for _, name in sorted(gains, key=lambda gain: -gain[0]):
        if name not in full and spectra[name].cost <= left:
            ranks[name] += 1
            left -= spectra[name].cost
        else:
            full.add(name)  # its later ranks would gain less at the same cost
    return ranks


def parameters(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int]) -> int:
    """Return the parameters of all β and γ at these ranks."""
    return sum(spectrum.cost * ranks[name] for name, spectrum in spectra.items())


def relative_error(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int]) -> float:
    """Return ‖α - β γᵀ‖ / ‖α‖ over all layers and domains, from the spectra (Eckart, Young)."""
    squares = {name: np.square(it.values.astype(np.float64)) for name, it in spectra.items()}
    lost = sum(values[ranks[name] :].sum() for name, values in squares.items())
    whole = sum(values.sum() for values in squares.values())
    return float(np.sqrt(lost / whole)) if whole else 0.0


def with_leaves(tree: Any, leaves: Mapping[str, Any], *, drop: str = "") -> dict[str, Any]:
    """Return a collection with some leaves added, and those that end in `drop` taken out."""
    kept = {
        path: leaf
        for path, leaf in trees.flatten(tree).items()
        if not (drop and path.endswith(drop))
    }
    return trees.unflatten({**kept, **leaves})
