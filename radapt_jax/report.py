"""Tables and plots of a finished run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from radapt_jax import compress, files, logs, tables
from radapt_jax.compress import Spectrum
from radapt_jax.evaluate import Row

HEADER = (
    *("domain", "method", "classes", "trained on", "evaluated on"),
    *("top-1 %", "parameters", "ratio"),
)

VALIDATION = (
    "validation misleads here: parallel adapters of the original code have 44 % on val and 64 % on "
    "test of aircraft, 75 % and 51 % of ucf101"
)


def misleading(rows: Sequence[Row]) -> bool:
    """Return whether a top-1 is of the Visual Decathlon's validation images."""
    return any(row.challenge and row.split.startswith("val") for row in rows)


def _cells(row: Row, thousands: str = ",") -> tuple[str, ...]:
    return (
        row.domain,
        row.method,
        f"{row.classes:{thousands}}",
        f"{row.trained_on} ({row.images:{thousands}})",
        f"{row.split} ({row.count:{thousands}})",
        "-" if row.top1 is None else f"{row.top1:.2f}",
        f"{row.parameters:{thousands}}",
        f"{row.ratio:.3f}",
    )


def _total(rows: Sequence[Row]) -> str:
    basis = max((row.basis for row in rows), default=0.0)
    ratio = sum(row.ratio for row in rows) + basis
    shared = f" ({basis:.2f} of it the shared β)" if basis else ""
    what = f"{ratio:.2f} times the backbone's parameters in all{shared}, heads apart."
    return f"{len(rows)} domains: {what if any(row.source for row in rows) else 'they add ' + what}"


def table(rows: Sequence[Row], style: str = "text") -> str:
    """Return the table of all domains, and under it what they cost together.

    Validation figures of the Visual Decathlon get a note. `style` is one of `tables.STYLES`; CSV
    has no lines under the table, and no commas in its numbers.
    """
    lines = [_cells(row, "" if style == "csv" else ",") for row in rows]
    notes = [_total(rows), *([f"{VALIDATION}."] if misleading(rows) else [])]
    return tables.render(HEADER, lines, style, left=(0, 1, 3, 4), notes=notes)


def write(rows: Sequence[Row], workdir: Path) -> Path:
    """Write results.json, results.md and results.png; return the picture's path."""
    facts = [dataclasses.asdict(row) for row in rows]
    files.write_atomically(workdir / "results.json", json.dumps(facts, indent=1) + "\n")
    files.write_atomically(workdir / "results.md", table(rows, "markdown") + "\n")
    return plot(rows, workdir)


def write_ranks(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int], workdir: Path) -> str:
    """Write ranks.json: the ranks, their parameters and relative error, and uniform ones beside.

    The uniform ranks are of the largest share that takes no more parameters.

    Returns:
      The same in a line, ranks apart.
    """
    budget = compress.parameters(spectra, ranks)
    uniform = compress.uniform_ranks(spectra, 0.01)
    for share in np.arange(0.01, 1.005, 0.01):
        wider = compress.uniform_ranks(spectra, min(float(share), 1.0))
        if compress.parameters(spectra, wider) <= budget:
            uniform = wider
    chosen = {"these ranks": ranks, "uniform ranks": uniform}
    facts = {
        what: {
            "parameters": compress.parameters(spectra, it),
            "relative_error": compress.relative_error(spectra, it),
        }
        for what, it in chosen.items()
    }
    text = json.dumps({"ranks": ranks, **facts}, indent=1) + "\n"
    files.write_atomically(workdir / "ranks.json", text)
    return "; ".join(
        f"{what}: {it['parameters']:,} parameters of β and γ, relative error of α "
        f"{it['relative_error']:.4f}"
        for what, it in facts.items()
    )


def plot_spectra(spectra: Mapping[str, Spectrum], path: Path) -> Path:
    """Draw the singular values of each layer's stacked adapters, relative to the largest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    values, energy = figure.subplots(1, 2)
    colours = {"stem": "C3", "stage1": "C0", "stage2": "C1", "stage3": "C2"}
    shown = set()
    for name, spectrum in spectra.items():
        stage = name.split("/")[0]
        label = None if stage in shown else stage
        shown.add(stage)
        squares = np.square(spectrum.values.astype(np.float64))
        ranks = np.arange(1, len(squares) + 1) / len(squares)
        style = {"color": colours[stage], "alpha": 0.6, "label": label}
        values.semilogy(ranks, np.maximum(spectrum.values / spectrum.values[0], 1e-6), **style)
        energy.plot(ranks, np.cumsum(squares) / squares.sum(), **style)
    values.set(xlabel="rank / full rank", ylabel="singular value / largest", title="Spectrum")
    energy.set(xlabel="rank / full rank", ylabel="energy kept", title="Energy", ylim=(0, 1.02))
    energy.axvline(0.5, color="0.5", lw=1, ls="--")
    values.legend()
    figure.savefig(path, dpi=100)
    return path


def plot(rows: Sequence[Row], workdir: Path) -> Path:
    """Draw validation top-1 while training, and final top-1, by domain."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    curves, bars = figure.subplots(1, 2)
    for index, row in enumerate(rows):
        colour = f"C{index % 10}"
        points = [
            (int(line["step"]), float(line["top1"]))
            for line in logs.read(workdir / "metrics" / f"{row.domain}.csv")
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
