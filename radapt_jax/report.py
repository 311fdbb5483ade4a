"""Tables and plots of a finished run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from radapt_jax import logs
from radapt_jax.evaluate import Row

HEADER = ("domain", "method", "classes", "images", "evaluated on", "top-1 %", "parameters", "ratio")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.domain,
        row.method,
        f"{row.classes:,}",
        f"{row.images:,}",
        f"{row.split} ({row.count:,})",
        f"{row.top1:.2f}",
        f"{row.parameters:,}",
        f"{row.ratio:.3f}",
    )


def _total(rows: Sequence[Row]) -> str:
    ratio = sum(row.ratio for row in rows)
    return f"{len(rows)} domains: {ratio:.2f} times the backbone's parameters in all, heads apart."


def text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal, and what all its domains cost together."""
    lines = [HEADER, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    left = (0, 1, 4)
    formatted = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, formatted))
    return "\n".join([formatted[0], rule, *formatted[1:], rule, _total(rows)])


def markdown(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = [HEADER, ("---",) * len(HEADER), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{_total(rows)}\n"


def write(rows: Sequence[Row], workdir: Path) -> Path:
    """Write results.json, results.md and results.png; return the picture's path."""
    facts = [dataclasses.asdict(row) for row in rows]
    (workdir / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    (workdir / "results.md").write_text(markdown(rows))
    return plot(rows, workdir)


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
        bars.barh(row.domain, row.top1, color=colour, alpha=0.5)
        what = f"{row.top1:.1f} %   {row.method}, {row.parameters:,} parameters"
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
