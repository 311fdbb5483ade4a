"""Rules that choose ranks: uniform, by energy, or the best under a budget of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from radapt_jax.adapters.ranks import rank_of
from radapt_jax.compress.svd import Matrices, factorise, stack


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Singular values of one layer's adapters, and the cost of one rank there.

    Args:
      values: float, in descending order, of all domains' adapters side by side.
      cost: parameters that one rank takes over all domains: inputs + domains · outputs.
      full: the most ranks that factors can use: min(inputs, outputs), or fewer where adapters have
        a lower rank already; default: as many as values.
    """

    values: np.ndarray
    cost: int
    full: int | None = None

    @property
    def full_rank(self) -> int:
        return len(self.values) if self.full is None else self.full


RankRule = Callable[[Mapping[str, Spectrum]], Mapping[str, int]]


def rank_rule(how: str, *, share: float = 0.5, energy: float = 0.9, budget: int = 0) -> RankRule:
    """Return the function that chooses ranks from spectra.

    Args:
      how: "uniform" (K = share · C), "energy" (the smallest K that keeps a share of each layer's
        energy) or "budget" (the most energy that a number of parameters can keep).
      share: of the full rank, for "uniform", in (0, 1].
      energy: share of each layer's squared singular values, for "energy", in (0, 1].
      budget: parameters of all β and γ, for "budget"; 0: as many as "uniform" takes.

    Raises:
      ValueError: an unknown rule.
    """
    rules: Mapping[str, RankRule] = {
        "uniform": lambda spectra: uniform_ranks(spectra, share),
        "energy": lambda spectra: energy_ranks(spectra, energy),
        "budget": lambda spectra: budget_ranks(
            spectra,
            budget or parameters(spectra, uniform_ranks(spectra, share)),
        ),
    }
    if how not in rules:
        raise ValueError(f"found rank rule {how!r}; expected one of {sorted(rules)}.")
    return rules[how]


def spectra(
    domains: Sequence[Matrices], highest: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Spectrum]:
    """Return the spectrum of each convolution's adapters, stacked over the domains.

    Args:
      domains: the adapters of each, `{convolution: α}` with α of shape (inputs, outputs).
      highest: the rank that they have, by convolution, where that is lower than inputs and outputs.

    Raises:
      ValueError: the domains do not have adapters on the same convolutions.
    """
    found = {}
    for name, (_, s, _) in factorise(stack(domains)).items():
        inputs, outputs = domains[0][name].shape
        full = min(inputs, outputs, highest.get(name, outputs))
        found[name] = Spectrum(s, inputs + len(domains) * outputs, full)
    return found


def uniform_ranks(spectra: Mapping[str, Spectrum], share: float = 0.5) -> dict[str, int]:
    """Return K = share · C for every layer of full rank C; the paper uses a share of 1/2.

    Raises:
      ValueError: the share is not in (0, 1].
    """
    return {name: rank_of(float(share), name, it.full_rank) for name, it in spectra.items()}


def energy_ranks(spectra: Mapping[str, Spectrum], energy: float) -> dict[str, int]:
    """Return for every layer the smallest K that keeps a share of its squared singular values.

    Raises:
      ValueError: the share `energy` is not in (0, 1].
    """
    if not 0 < energy <= 1:
        raise ValueError(f"found an energy share of {energy}; expected one in (0, 1].")
    found = {}
    for name, spectrum in spectra.items():
        kept = np.cumsum(np.square(spectrum.values.astype(np.float64)))
        enough = np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12)) + 1
        found[name] = int(min(enough, len(spectrum.values)))
    return found


def budget_ranks(spectra: Mapping[str, Spectrum], budget: int) -> dict[str, int]:
    """Choose the ranks of all layers together, so that as much energy as possible is kept.

    Ranks are taken in the order of energy per parameter, as long as they fit; the result is less
    than the energy of one rank below the optimum. Every layer gets at least one rank.

    Args:
      spectra: by convolution.
      budget: parameters of all β and γ, over all domains.

    Raises:
      ValueError: the budget does not cover one rank for each layer.
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
            full.add(name)  # later ranks gain less at the same cost
    return ranks


def parameters(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int]) -> int:
    """Return how many parameters all β and γ have at these ranks.

    Raises:
      KeyError: `ranks` lacks a convolution.
    """
    return sum(spectrum.cost * ranks[name] for name, spectrum in spectra.items())


def relative_error(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int]) -> float:
    """Return ‖α - β γᵀ‖ / ‖α‖ over all layers and domains, from the spectra (Eckart and Young).

    That of the plain SVD: no factors of these ranks have less.

    Raises:
      KeyError: `ranks` lacks a convolution.
    """
    squares = {name: np.square(it.values.astype(np.float64)) for name, it in spectra.items()}
    lost = sum(values[ranks[name] :].sum() for name, values in squares.items())
    whole = sum(values.sum() for values in squares.values())
    return float(np.sqrt(lost / whole)) if whole else 0.0
