"""What a new domain of a family starts from."""

from __future__ import annotations

import logging
from typing import Any

from radapt_jax.adapters.base import is_adapters
from radapt_jax.family.family import Family
from radapt_jax.models.init import initial_variables
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

log = logging.getLogger(__name__)


def start_variables(
    family: Family, spec: ModelSpec, name: str, num_classes: int, seed: int
) -> dict[str, Any]:
    """Return the first variables of a domain that is to be trained on a family, in NumPy.

    Filters (and shared variables of adapters) are the family's, norms with their statistics (and
    shortcuts, where each domain has its own) those of its source domain, where it has that;
    adapters (with their norms) and head are fresh.

    Args:
      family: which is not changed.
      spec: the domain's network.
      name: of the domain, for the log.
      num_classes: of the domain.
      seed: of what is fresh.
    """
    given = trees.flatten({"params": family.shared.params_for(spec)})
    source = family.shared.source
    if source is None or source not in family:
        log.warning(
            "%s: starts from identity norms, and will be less accurate than from the backbone's: "
            "the family has no source domain%s.",
            name,
            f" {source!r}, on which it was pre-trained; save it along"
            if source
            else " (radapt_jax.family_of_original makes one of weights of the original code)",
        )
    else:
        given |= {
            path: leaf
            for path, leaf in trees.flatten(family[source].variables).items()
            if not is_adapters(path) and not path.startswith(("adapters/head/", "params/"))
        }
    return initial_variables(spec, num_classes, seed, given)
