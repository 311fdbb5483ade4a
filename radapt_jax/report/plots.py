"""Plots of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from radapt_jax.compress.ranks import Spectrum
from radapt_jax.evaluation.result import Result
from radapt_jax.report.results import _cells
from radapt_jax.utils import files


def plot_spectra(spectra: Mapping[str, Spectrum], path: Path) -> Path:
    """Draw singular values, relative to the largest, and energy kept by rank; return `path`.

    Args:
      spectra: of each convolution.
      path: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    values, energy = figure.subplots(1, 2)
    stages = list(dict.fromkeys(name.split("/")[0] for name in spectra))
    shown = set()
    for name, spectrum in spectra.items():
        stage = name.split("/")[0]
        label = None if stage in shown else stage
        shown.add(stage)
        squares = np.square(spectrum.values.astype(np.float64))
        ranks = np.arange(1, len(squares) + 1) / len(squares)
        style = {"color": f"C{stages.index(stage) % 10}", "alpha": 0.6, "label": label}
        values.semilogy(ranks, np.maximum(spectrum.values / spectrum.values[0], 1e-6), **style)
        energy.plot(ranks, np.cumsum(squares) / squares.sum(), **style)
    values.set(xlabel="rank / full rank", ylabel="singular value / largest", title="Spectrum")
    energy.set(xlabel="rank / full rank", ylabel="energy kept", title="Energy", ylim=(0, 1.02))
    energy.axvline(0.5, color="0.5", lw=1, ls="--")
    values.legend()
    figure.savefig(path, dpi=100)
    return path


def plot(rows: Sequence[Result], workdir: Path) -> Path:
    """Draw validation top-1 during training and final top-1, in percent, by domain.

    Args:
      rows: the results, one a domain.
      workdir: has the metrics; results.png is written there.

    Returns:
      The picture's path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    curves, bars = figure.subplots(1, 2)
    for index, row in enumerate(rows):
        colour = f"C{index % 10}"
        points = [
            (int(line["step"]), float(line["top1"]))
            for line in files.read_rows(workdir / "metrics" / f"{row.domain}.csv")
            if line["split"] == "val"
        ]
        if points:
            curves.plot(*zip(*points, strict=True), marker="o", color=colour, label=row.domain)
        bars.barh(row.domain, row.top1 or 0.0, color=colour, alpha=0.5)
        what = f"{_cells(row)[5]} %   {row.method}, {row.parameters:,} parameters"
        bars.text(1.5, index, what, va="center", fontsize="small")
    curves.set(xlabel="step", ylabel="validation top-1 (%)", title="Training")
    if curves.lines:
        curves.legend()
    splits = " / ".join(dict.fromkeys(row.split for row in rows))
    bars.set(xlabel=f"{splits} top-1 (%)", xlim=(0, 100), title="All domains, one backbone")
    bars.invert_yaxis()
    path = workdir / "results.png"
    figure.savefig(path, dpi=100)
    return path
