"""Low-rank products that lose what matters least, by the second moments of a domain's images.

The plain SVD minimises the error of α itself. Here it is the error of what the network predicts, to
second order (see `moments`), over domains t:

    Σ_t tr(G_t Δ_tᵀ S_t Δ_t),  Δ_t = α_t - β γ_tᵀ

With one S for all domains the best factors have a closed form, the SVD of S^½ α_t G_t^½
side by side. With an S_t of each domain's own, β and γ_t are found in turn. Nearest to this in the
literature: CovNorm (Li and Vasconcelos, CVPR 2019) whitens what a domain's adapter reads and gives,
SVD-LLM (Wang et al., arXiv 2403.07378) whitens inputs alone, and Basis Sharing (Wang et al., arXiv
2410.03765) shares β between layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from radapt_jax.compress.moments import Moments
from radapt_jax.compress.svd import Factors, Matrices, joint_svd

INPUT_RIDGE, GRADIENT_RIDGE = 1e-4, 1e-3  # added to the diagonal, as a share of its mean
TINY = 1e-12  # the least of that mean: dead channels
ROUNDS, STEPS = 30, 25  # of the alternation, and of conjugate gradients in each


class Whitening(NamedTuple):
    """Roots of S (c, c) and G (d, d) of one convolution, and their inverses."""

    inputs: np.ndarray
    from_inputs: np.ndarray
    outputs: np.ndarray
    from_outputs: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, gradients: np.ndarray) -> Whitening:
        return cls(*_roots(inputs), *_roots(gradients))

    def whiten(self, alpha: Float[np.ndarray, "c d"]) -> Float[np.ndarray, "c d"]:
        """Return S^½ α G^½, whose squared norm is tr(G αᵀ S α)."""
        return self.inputs @ alpha @ self.outputs


def _roots(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(moment)
    root = np.sqrt(values)
    return vectors * root @ vectors.T, vectors / root @ vectors.T


def inputs_of(moments: Moments, conv: str) -> np.ndarray:
    """Return S of a convolution with its ridge, (c, c) in float64: positive definite."""
    return _ridged(moments.inputs[conv], INPUT_RIDGE)


def gradients_of(moments: Moments, conv: str) -> np.ndarray:
    """Return G of a convolution with its ridge, (d, d) in float64: positive definite."""
    return _ridged(moments.gradients[conv], GRADIENT_RIDGE)


def _ridged(moment: np.ndarray, share: float) -> np.ndarray:
    moment = np.asarray(moment, np.float64)
    mean = max(np.trace(moment) / len(moment), TINY)
    return moment + share * mean * np.eye(len(moment))


def whitenings(moments: Sequence[Moments]) -> list[dict[str, Whitening]]:
    """Return the whitening of every convolution for each domain.

    S is the mean over the domains, the same for all; G is each domain's own.
    """
    common = {
        conv: np.mean([inputs_of(it, conv) for it in moments], 0) for conv in moments[0].inputs
    }
    return [
        {conv: Whitening.of(common[conv], gradients_of(it, conv)) for conv in common}
        for it in moments
    ]


def whitened(alphas: Matrices, by: Mapping[str, Whitening]) -> Matrices:
    """Return S^½ α G^½ of every convolution."""
    return {conv: by[conv].whiten(alpha) for conv, alpha in alphas.items()}


def closed_form(
    domains: Mapping[str, Matrices], moments: Mapping[str, Moments], ranks: Mapping[str, int]
) -> Factors:
    """Return the best factors with one S for all domains, their mean, and G_t of each.

    U Σ V_tᵀ is the SVD of S^½ α_t G_t^½ side by side, cut at rank K; β = S^-½ U Σ and
    γ_tᵀ = V_tᵀ G_t^-½. Of one domain alone they are the best that there are.

    Args:
      domains: `{domain: {convolution: α}}`, each (c, d).
      moments: of each domain.
      ranks: K by convolution.

    Returns:
      `{convolution: β}`, each (c, K), and `{domain: {convolution: γᵀ}}`, each (K, d).

    Raises:
      KeyError: `ranks` lacks a convolution.
      ValueError: the domains do not have adapters on the same convolutions.
    """
    by = dict(zip(domains, whitenings([moments[name] for name in domains]), strict=True))
    betas, gammas = joint_svd({name: whitened(domains[name], by[name]) for name in domains}, ranks)
    common = next(iter(by.values()))
    return (
        {conv: _float32(common[conv].from_inputs @ beta) for conv, beta in betas.items()},
        {
            name: {
                conv: _float32(gamma @ by[name][conv].from_outputs) for conv, gamma in own.items()
            }
            for name, own in gammas.items()
        },
    )


def alternating(
    domains: Mapping[str, Matrices],
    moments: Mapping[str, Moments],
    ranks: Mapping[str, int],
    rounds: int = ROUNDS,
) -> Factors:
    """Return factors with each domain's own S_t and G_t, from `closed_form` onwards.

    In turn, γ_tᵀ = (βᵀ S_t β)⁻¹ βᵀ S_t α_t, from which G_t cancels, and β as the solution of
    Σ_t S_t β (γ_tᵀ G_t γ_t) = Σ_t S_t α_t G_t γ_t by conjugate gradients. No step raises the
    objective.

    Args, Returns, Raises: see `closed_form`.
      rounds: how often both are found.
    """
    starts, best = closed_form(domains, moments, ranks)
    if len(domains) == 1:
        return starts, best
    betas: Matrices = {}
    gammas: dict[str, Matrices] = {name: {} for name in domains}
    for conv, start in starts.items():
        problem = Problem.of(domains, moments, conv)
        beta, own = problem.solve(start, rounds)
        betas[conv] = _float32(beta)
        for name, gamma in zip(domains, own, strict=True):
            gammas[name][conv] = _float32(gamma)
    return betas, gammas


class Problem(NamedTuple):
    """The objective at one convolution; the first axis of all is domains.

    Args:
      alphas: α_t, (t, c, d).
      inputs: S_t, (t, c, c).
      gradients: G_t, (t, d, d).
    """

    alphas: np.ndarray
    inputs: np.ndarray
    gradients: np.ndarray

    @classmethod
    def of(
        cls, domains: Mapping[str, Matrices], moments: Mapping[str, Moments], conv: str
    ) -> Problem:
        return cls(
            np.stack([np.asarray(own[conv], np.float64) for own in domains.values()]),
            np.stack([inputs_of(moments[name], conv) for name in domains]),
            np.stack([gradients_of(moments[name], conv) for name in domains]),
        )

    def lost(self, beta: np.ndarray, gammas: np.ndarray) -> float:
        """Return Σ_t tr(G_t Δ_tᵀ S_t Δ_t)."""
        error = self.alphas - beta @ gammas
        return float(np.einsum("tcd,tcd->", self.inputs @ error @ self.gradients, error))

    def gammas(self, beta: np.ndarray) -> np.ndarray:
        """Return the best γ_tᵀ, (t, K, d), for β (c, K)."""
        read = beta.T @ self.inputs
        return np.linalg.solve(read @ beta, read @ self.alphas)

    def beta(self, start: np.ndarray, gammas: np.ndarray) -> np.ndarray:
        """Return a β (c, K) that is better than `start` for γ_tᵀ (t, K, d), or as good."""
        weighed = self.gradients @ gammas.swapaxes(1, 2)
        right = gammas @ weighed

        def left_of(beta: np.ndarray) -> np.ndarray:
            return (self.inputs @ beta.reshape(start.shape) @ right).sum(0).reshape(-1)

        from scipy.sparse.linalg import LinearOperator, cg  # every start would wait for it

        size = start.size
        wanted = (self.inputs @ self.alphas @ weighed).sum(0).reshape(-1)
        operator: Any = LinearOperator((size, size), matvec=left_of, dtype=np.float64)
        found, _ = cg(operator, wanted, x0=start.reshape(-1), rtol=1e-10, maxiter=STEPS)
        return found.reshape(start.shape)

    def solve(self, start: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        """Return β (c, K) with orthonormal columns and γ_tᵀ (t, K, d), from a first β onwards."""
        beta = np.linalg.qr(start.astype(np.float64))[0]
        for _ in range(rounds):
            beta = np.linalg.qr(self.beta(beta, self.gammas(beta)))[0]
        return beta, self.gammas(beta)


def input_roots(moments: Moments) -> Matrices:
    """Return S^½ of every convolution, (c, c) in float64; see `svd.project`."""
    return {conv: _roots(inputs_of(moments, conv))[0] for conv in moments.inputs}


def _float32(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix, np.float32)
