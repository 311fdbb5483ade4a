"""Families of weights at random, for benchmarks of serving: speed does not depend on weights."""

import jax

from radapt_jax import (
    Domain,
    Family,
    Member,
    ModelSpec,
    Parallel,
    ResNet26,
    Shared,
    initial_variables,
)


def member(name, seed, width, size, classes):
    """A domain with parallel adapters."""
    spec = ModelSpec(ResNet26(width), Parallel(init="he_normal"))
    variables = initial_variables(spec, classes, seed)
    domain = Domain(name, tuple(map(str, range(classes))), (0.5,) * 3, (0.25,) * 3, size, size)
    own = {it: variables[it] for it in ("adapters", "batch_stats")}
    own["adapters"] = jax.tree.map(lambda leaf: 0.1 * leaf, own["adapters"])  # modest logits
    return Member(domain, spec, own, method="parallel")


def make_family(count, width, size, classes):
    """A family of domains d0, d1, ... on shared weights at random."""
    spec = ModelSpec(ResNet26(width), Parallel(init="he_normal"))
    family = Family(Shared(initial_variables(spec, classes, 0)["params"], ResNet26(width)))
    for seed in range(count):
        family.add(f"d{seed}", member(f"d{seed}", seed, width, size, classes))
    return family
