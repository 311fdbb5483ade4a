"""Low-rank and joint compression of parallel adapters (CVPR 2018, section 3.4).

Adapter kernels are `{convolution: α}` with α of shape (inputs, outputs), the matrix of x ↦ x α;
ranks are `{convolution: K}`.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from radapt_jax.adapters.ranks import Ranks, rank_of
from radapt_jax.utils.checks import check, whole

Matrices = dict[str, np.ndarray]
Factors = tuple[Matrices, dict[str, Matrices]]  # β by convolution, and γᵀ by domain


def factorise(matrices: Matrices) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return U, the singular values and Vᵀ of each matrix, by one batched SVD for each shape."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, matrix in matrices.items():
        by_shape.setdefault(matrix.shape, []).append(name)
    found: dict[str, Any] = {}
    for names in by_shape.values():
        stack = jnp.stack([jnp.asarray(matrices[name]) for name in names])
        parts = [np.asarray(part) for part in jnp.linalg.svd(stack, full_matrices=False)]
        found |= {name: tuple(part[row] for part in parts) for row, name in enumerate(names)}
    return {name: found[name] for name in matrices}


def truncate(alphas: Matrices, rank: Ranks | int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return (β, γᵀ) of the best approximation of each rank, α ≈ β γᵀ; see `compress.family.svd`.

    Raises:
      ValueError: a rank or share is missing or out of range.
    """
    if isinstance(rank, numbers.Integral):
        check("rank", rank, whole(1))
        rank = int(rank)
    found = {}
    for name, (u, s, vt) in factorise(alphas).items():
        k = min(rank, len(s)) if isinstance(rank, int) else rank_of(rank, name, len(s))
        found[name] = (u[:, :k] * s[:k], vt[:k])
    return found


def stack(domains: Sequence[Matrices]) -> Matrices:
    """Return [α_1 ... α_T] for each convolution, (inputs, T · outputs).

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


def joint_svd(domains: Mapping[str, Matrices], ranks: Mapping[str, int]) -> Factors:
    """Compress several domains together: α_t ≈ β γ_tᵀ with β = U Σ shared by all.

    Returns:
      `{convolution: β}` of shapes (inputs, K), and `{domain: {convolution: γᵀ}}` of shapes
      (K, outputs).

    Raises:
      KeyError: `ranks` lacks a convolution.
      ValueError: the domains do not have adapters on the same convolutions.
    """
    shared: Matrices = {}
    gammas: dict[str, Matrices] = {domain: {} for domain in domains}
    for name, (u, s, vt) in factorise(stack(list(domains.values()))).items():
        rank = ranks[name]
        shared[name] = u[:, :rank] * s[:rank]
        for domain, part in zip(domains, np.split(vt[:rank], len(domains), 1), strict=True):
            gammas[domain][name] = np.ascontiguousarray(part)
    return shared, gammas


def project(alphas: Matrices, betas: Matrices, roots: Matrices | None = None) -> Matrices:
    """Express a domain's dense adapters in a family's β, by least squares for each layer.

    Args:
      alphas: `{convolution: α}`, each (inputs, outputs).
      betas: `{convolution: β}`, each (inputs, K).
      roots: `{convolution: S^½}`, each (inputs, inputs), of the second moments S of what the
        adapters read, by which errors are weighed: γᵀ = (βᵀ S β)⁻¹ βᵀ S α; None: they are not.

    Returns:
      `{convolution: γᵀ}`, each (K, outputs).

    Raises:
      KeyError: `betas` lacks a convolution.
    """
    found = {}
    for conv, alpha in alphas.items():
        root = np.eye(len(alpha), dtype=alpha.dtype) if roots is None else roots[conv]
        gamma = np.linalg.lstsq(root @ betas[conv], root @ alpha, rcond=None)[0]
        found[conv] = gamma.astype(alpha.dtype)
    return found


def error_of(alphas: Matrices, betas: Matrices, gammas: Matrices) -> float:
    """Return the relative error ‖α - β γᵀ‖ / ‖α‖ over all layers of a domain; see `project`."""
    lost = sum(float(np.square(alphas[n] - betas[n] @ gammas[n]).sum()) for n in alphas)
    whole = sum(float(np.square(alpha).sum()) for alpha in alphas.values())
    return float(np.sqrt(lost / whole)) if whole else 0.0
