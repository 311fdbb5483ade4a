"""The Visual Decathlon's score: points that grow quadratically as an error falls below a limit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import NamedTuple

from radapt_jax.data.decathlon.facts import DECATHLON, decathlon_name


class Points(NamedTuple):
    """What a domain adds to the score.

    Args:
      accuracy: in percent.
      points: from 0 to 1000.
      next_point: points that one more percent of accuracy would add (from 99 % on: those that are
        left up to 100 %).
    """

    accuracy: float
    points: float
    next_point: float


def largest_error(name: str) -> float:
    """Return the error in percent at which points begin: twice that of finetuning in 2017.

    Raises:
      KeyError: the decathlon has no such domain.
    """
    return 2 * (100 - DECATHLON[name].baseline)


def points_of(error: float, largest: float) -> float:
    """Return 1000 max(0, 1 - E / E^max)², a domain's points, for errors in percent."""
    return 1000 * max(0.0, 1 - error / largest) ** 2


def decathlon_score(accuracies: Mapping[str, float]) -> float:
    """Return S = Σ_d 1000 max(0, 1 - E_d / E_d^max)², the score of the Visual Decathlon.

    E_d is the error on domain d, and E_d^max is twice that of the finetuning baseline of 2017,
    which therefore scores 2500 (Rebuffi et al., NIPS 2017, section 4, and the challenge's rules).
    With fewer than ten domains, the score is the sum over those given.

    Args:
      accuracies: top-1 in percent by decathlon domain; `vgg_flowers` is `vgg-flowers`.

    Returns:
      Points: at most 1000 for each domain given.

    Raises:
      ValueError: no domain is given, one is not of the decathlon or is given in two spellings, an
        accuracy is not in [0, 100], or the accuracies look like fractions, none being above 1.
    """
    points = decathlon_points(accuracies)
    if all(domain.accuracy <= 1 for domain in points.values()):
        raise ValueError(
            f"found accuracies {dict(accuracies)}, none above 1; expected percent in [0, 100], and "
            "these look like fractions. Multiply them by 100."
        )
    return sum(domain.points for domain in points.values())


def decathlon_points(accuracies: Mapping[str, float]) -> dict[str, Points]:
    """Return each domain's points and those of one more percent, in the decathlon's order.

    The equation is that of `decathlon_score`. Accuracies of at most 1 count as percent too, since
    a run of a few steps may be that bad.

    Args:
      accuracies: top-1 in percent by decathlon domain; `vgg_flowers` is `vgg-flowers`.

    Raises:
      ValueError: as `decathlon_score`, except for fractions.
    """
    percent = _checked(accuracies)
    return {name: _points(name, percent[name]) for name in DECATHLON if name in percent}


def _points(name: str, accuracy: float) -> Points:
    def points(accuracy: float) -> float:
        return points_of(100 - accuracy, largest_error(name))

    now = points(accuracy)
    return Points(accuracy, now, points(min(100.0, accuracy + 1)) - now)


def _checked(accuracies: Mapping[str, float]) -> dict[str, float]:
    """Return the accuracies, with domains in the decathlon's spelling."""
    if not accuracies:
        raise ValueError(
            "found no accuracies; expected top-1 in percent by domain, e.g. {'svhn': 96.55}."
        )
    checked: dict[str, float] = {}
    for given, accuracy in accuracies.items():
        name = decathlon_name(given)
        if name is None:
            close = difflib.get_close_matches(given, DECATHLON, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"found domain {given!r}; the decathlon has {', '.join(DECATHLON)}.{hint} "
                "Leave other domains out."
            )
        if name in checked:
            raise ValueError(
                f"found domain {name!r} twice, under two spellings; expected each domain once. "
                f"Leave one out of {', '.join(accuracies)}."
            )
        if accuracy is None or not 0 <= accuracy <= 100:
            raise ValueError(
                f"domain {given!r}: found accuracy {accuracy}; expected percent in [0, 100]. "
                "Leave out a domain that has not been evaluated."
            )
        checked[name] = float(accuracy)
    return checked
