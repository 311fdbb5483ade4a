"""Export of one domain to StableHLO: a file that a process can load and run with only jax.

    from jax import export
    exported = export.deserialize(open("digits.stablehlo", "rb").read())
    probabilities = exported.call(images)            # uint8 (n, size, size, 3), any n

Class names and the image size are in a JSON file beside it, `<path>.json`, with the sha256 of the
program that they belong to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from radapt_jax.data.domain import Domain
from radapt_jax.family.predict import probabilities, statistics
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import files
from radapt_jax.utils.files import check_file_place
from radapt_jax.utils.programs import make_room

# The platforms that jax.export documents as built in. It accepts any other word too, and writes a
# program that runs nowhere.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export(
    spec: ModelSpec,
    variables: Mapping[str, Any],
    domain: Domain,
    path: str | Path,
    platforms: str | Sequence[str] = ("cpu", "cuda"),
) -> None:
    """Write `path` (StableHLO with the weights and a symbolic batch) and `<path>.json` (its facts).

    The facts are moved into place first, so that whoever finds the program finds them too.

    Args:
      spec: the model spec.
      variables: of the network, `params`, `adapters` and `batch_stats`.
      domain: its facts.
      path: of the program.
      platforms: where it can run, one or several of `PLATFORMS`.

    Raises:
      ValueError: no platform, or an unknown one.
      OSError: nothing can be written there; files that are there stay unchanged.
    """
    chosen = _checked(platforms)
    path = Path(path)
    check_file_place(path)
    make_room()
    model = spec.build(domain.num_classes)
    mean, std = statistics(domain)

    def predict(images: jax.Array) -> jax.Array:
        return probabilities(model, variables, images, mean, std)

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, domain.size, domain.size, 3), jnp.uint8)
    with _base_names():
        program = bytes(jax_export.export(jax.jit(predict), platforms=chosen)(images).serialize())
    facts = {
        **domain.to_json(),
        "input": "uint8 (batch, size, size, 3)",
        "platforms": chosen,
        "jax": jax.__version__,
        "sha256": hashlib.sha256(program).hexdigest(),
    }
    text = json.dumps(facts, indent=1) + "\n"
    files.write_together({path.with_name(f"{path.name}.json"): text, path: program})


def _checked(platforms: str | Sequence[str]) -> tuple[str, ...]:
    """Return the platforms, each once; a single word is one platform."""
    chosen = tuple(dict.fromkeys([platforms] if isinstance(platforms, str) else platforms))
    unknown = [platform for platform in chosen if platform not in PLATFORMS]
    if unknown or not chosen:
        hint = " A GPU is 'cuda' or 'rocm'." if "gpu" in unknown else ""
        raise ValueError(
            f"found platforms {unknown}; expected one or several of {list(PLATFORMS)}.{hint}"
        )
    return chosen


@contextlib.contextmanager
def _base_names() -> Iterator[None]:
    """Make JAX record the names of source files without this machine's folders."""
    entry = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, entry)
    jax.config.update(entry, r".*[/\\]")
    try:
        yield
    finally:
        jax.config.update(entry, before)
