"""Export of one domain to StableHLO: a file that a process with jax alone loads and runs.

    from jax import export
    exported = export.deserialize(open("digits.stablehlo", "rb").read())
    probabilities = exported.call(images)            # uint8 (n, size, size, 3), any n

Class names and the image size are in a JSON file beside it, `<path>.json`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from radapt_jax.domains import Domain
from radapt_jax.models import ModelSpec
from radapt_jax.serving import probabilities, statistics


def export(
    spec: ModelSpec,
    variables: Mapping[str, Any],
    domain: Domain,
    path: str | Path,
    platforms: Sequence[str] = ("cpu", "cuda"),
) -> None:
    """Write `path` (StableHLO, weights inside, symbolic batch) and `<path>.json` (its facts)."""
    model = spec.build(domain.num_classes)
    mean, std = statistics(domain)

    def predict(images: jax.Array) -> jax.Array:
        return probabilities(model, variables, images, mean, std)

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, domain.size, domain.size, 3), jnp.uint8)
    with _base_names():
        exported = jax_export.export(jax.jit(predict), platforms=tuple(platforms))(images)
    facts = {**domain.to_json(), "input": "uint8 (batch, size, size, 3)", "jax": jax.__version__}
    Path(path).write_bytes(exported.serialize())
    Path(f"{path}.json").write_text(json.dumps(facts, indent=1) + "\n")


@contextlib.contextmanager
def _base_names() -> Iterator[None]:
    """Let JAX write down the names of source files without the folders of this machine."""
    entry = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, entry)
    jax.config.update(entry, r".*[/\\]")
    try:
        yield
    finally:
        jax.config.update(entry, before)
