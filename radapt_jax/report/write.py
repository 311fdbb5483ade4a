"""Writes the results of a finished run into files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from radapt_jax.compress.ranks import Spectrum, parameters, relative_error, uniform_ranks
from radapt_jax.evaluation.result import Result
from radapt_jax.report.plots import plot
from radapt_jax.report.results import table
from radapt_jax.utils import files


def write(rows: Sequence[Result], workdir: Path) -> Path:
    """Write results.json, results.md and results.png into a workdir; return the picture's path.

    Raises:
      OSError: a file cannot be written; what was there before is intact.
    """
    facts = [dataclasses.asdict(row) for row in rows]
    files.write_atomically(workdir / "results.json", json.dumps(facts, indent=1) + "\n")
    files.write_atomically(workdir / "results.md", table(rows, "markdown") + "\n")
    return plot(rows, workdir)


def write_ranks(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int], workdir: Path) -> str:
    """Write ranks.json: ranks, their parameters and least error, and those of uniform ranks.

    The uniform ranks have the largest share that takes no more parameters. The least relative error
    is that of the plain SVD at these ranks; factors fitted to images are further from α.

    Args:
      spectra: of each convolution.
      ranks: of each convolution.
      workdir: where the file goes.

    Returns:
      Parameters and least relative errors in one line.

    Raises:
      KeyError: `ranks` lacks a convolution.
      OSError: the file cannot be written; what was there before is intact.
    """
    budget = parameters(spectra, ranks)
    uniform = uniform_ranks(spectra, 0.01)
    for share in np.arange(0.01, 1.005, 0.01):
        wider = uniform_ranks(spectra, min(float(share), 1.0))
        if parameters(spectra, wider) <= budget:
            uniform = wider
    chosen = {"these ranks": ranks, "uniform ranks": uniform}
    facts = {
        what: {
            "parameters": parameters(spectra, it),
            "relative_error": relative_error(spectra, it),
        }
        for what, it in chosen.items()
    }
    text = json.dumps({"ranks": dict(ranks), **facts}, indent=1) + "\n"
    files.write_atomically(workdir / "ranks.json", text)
    return "; ".join(
        f"{what}: {it['parameters']:,} parameters of β and γ, relative error of α at least "
        f"{it['relative_error']:.4f}"
        for what, it in facts.items()
    )
