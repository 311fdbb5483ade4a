"""Ranks of low-rank adapters: by number, by share of the full rank, by convolution, by budget."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

from radapt_jax.utils.checks import Kind, number, whole

Ranks = int | float | Mapping[str, int]
SHARE, RANK = number("(0, 1]"), whole(1)
STEPS = 256  # shares that a budget chooses from


def _is_rank(found: Any) -> bool:
    return isinstance(found, numbers.Integral) and RANK.holds(found)


def _are_ranks(found: Any) -> bool:
    if isinstance(found, Mapping):
        return all(map(_is_rank, found.values()))
    return _is_rank(found) or (not isinstance(found, numbers.Integral) and SHARE.holds(found))


RANKS = Kind(
    f"{RANK.words}, a share of the full rank ({SHARE.words}, written with a point), or "
    f"{RANK.words} for each convolution",
    _are_ranks,
)


def rank_of(ranks: Ranks, conv: str, full: int, most: int | None = None) -> int:
    """Return a rank for one convolution, at least 1.

    Args:
      ranks: a number for all convolutions, limited to the most there can be; a share of the full
        rank, a float; or ranks by convolution (those that are not in it carry no low-rank adapter).
      conv: its path, such as "stage1/block1/conv1".
      full: the full rank of one domain's adapter, min(inputs, outputs).
      most: the highest rank there can be; default: `full`.

    Raises:
      ValueError: a share outside (0, 1], or no rank, or one out of range, for this convolution.
    """
    most = full if most is None else most
    if isinstance(ranks, Mapping):
        if not 1 <= ranks.get(conv, 0) <= most:
            raise ValueError(
                f"found rank {ranks.get(conv)} for the adapter of {conv}; expected 1 to {most}."
            )
        return ranks[conv]
    if isinstance(ranks, numbers.Integral):
        return min(int(ranks), most)
    if not 0 < ranks <= 1:
        raise ValueError(f"found ranks {ranks}; expected a share of the full rank in (0, 1].")
    return max(int(ranks * full + 0.5), 1)


def ranks_within(
    budget: int, full: Mapping[str, int], cost: Callable[[Mapping[str, int]], int]
) -> dict[str, int]:
    """Return the ranks of the largest common share of the full rank that a budget allows.

    Args:
      budget: parameters of all of a domain's adapters.
      full: the full rank on each convolution.
      cost: returns the parameters of all adapters at some ranks.

    Raises:
      ValueError: the budget does not cover rank 1 everywhere.
    """
    best = dict.fromkeys(full, 1)
    if (least := cost(best)) > budget:
        raise ValueError(
            f"found a budget of {budget:,} parameters; expected at least {least:,}, rank 1 on each "
            f"of {len(full)} convolutions. Raise it, or adapt fewer stages."
        )
    for part in range(1, STEPS + 1):
        ranks = {conv: rank_of(part / STEPS, conv, most) for conv, most in full.items()}
        if cost(ranks) > budget:
            break
        best = ranks
    return best
