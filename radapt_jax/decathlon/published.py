"""Published results on the Visual Decathlon, for comparison with our own.

The accuracies are those printed in the papers, on the challenge's test split:

- Rebuffi, Bilen and Vedaldi, "Learning multiple visual domains with residual adapters", NIPS 2017
- Rebuffi, Bilen and Vedaldi, "Efficient parametrization of multi-domain deep neural networks",
  CVPR 2018, which is what this library implements
- Rosenfeld and Tsotsos, "Incremental learning through deep adaptation", arXiv 2017
- Mallya, Davis and Lazebnik, "Piggyback", ECCV 2018
- Morgado and Vasconcelos, "NetTailor", CVPR 2019
- Li, Liu and Bilen, "Universal representations", IJCV 2024
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from importlib import resources

from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.decathlon.score import decathlon_score


@dataclasses.dataclass(frozen=True)
class Published:
    """The results of one method in a paper.

    Args:
      key: the recipe's name, if this library has one.
      method: its name in the paper.
      reference: authors, venue and year.
      ratio: parameters of all ten domains over one backbone's; None: not printed.
      accuracies: top-1 in percent by decathlon domain.
    """

    key: str
    method: str
    reference: str
    ratio: float | None
    accuracies: Mapping[str, float]

    @property
    def venue(self) -> str:
        """Where and when it appeared, without the authors."""
        return self.reference.rpartition(", ")[2]

    @property
    def mean(self) -> float:
        """Mean top-1 in percent."""
        return sum(self.accuracies.values()) / len(self.accuracies)

    @property
    def score(self) -> float:
        """Decathlon score of the rounded accuracies: within 2.5 points of the printed score."""
        return decathlon_score(self.accuracies)


def published() -> dict[str, Published]:
    """Return the published results by key, in the order of the papers."""
    text = (resources.files("radapt_jax") / "published.csv").read_text(encoding="utf-8")
    return {line["key"]: _read(line) for line in csv.DictReader(text.splitlines())}


def _read(line: Mapping[str, str]) -> Published:
    return Published(
        key=line["key"],
        method=line["method"],
        reference=line["reference"],
        ratio=float(line["ratio"]) if line["ratio"] else None,
        accuracies={name: float(line[name]) for name in DECATHLON},
    )
