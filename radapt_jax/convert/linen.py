"""A family of the weights of one's own Linen network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from radapt_jax.convert.torch import source_family
from radapt_jax.family.family import Family
from radapt_jax.models.own.backbone import OwnNetwork
from radapt_jax.models.spec import ModelSpec


def family_of_network(
    backbone: OwnNetwork,
    variables: Mapping[str, Any],
    name: str = "source",
    classes: Sequence[str] | None = None,
    **facts: Any,
) -> Family:
    """Return a family of a network's weights, whose source domain they were trained on.

    Args:
      backbone: of `radapt_jax.adapt`.
      variables: of the network itself: `params`, and `batch_stats` if it has batch norms. Its
        `backbone.init(seed)` are those that it starts from.
      name: of the domain.
      classes: names in label order; default: "0", "1" and so on.
      facts: of the domain, see `Domain`: mean and std must be there; size and resize should be
        those that it was trained with.

    Raises:
      TypeError: mean or std are not there.
      ValueError: variables that are not those of the network, names for another class count than
        its classifier's, or a fact that `Domain` refuses.
    """
    return source_family(backbone.arranged(variables), ModelSpec(backbone), name, classes, **facts)
