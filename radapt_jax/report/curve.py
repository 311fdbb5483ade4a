"""Accuracy against bytes of ways to compress a family: a table and a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radapt_jax.report.render import render


@dataclasses.dataclass(frozen=True)
class Point:
    """A way to compress, the mean top-1 of its domains in percent, and the bytes of all of them."""

    name: str
    top1: float
    size: int


def table(points: Sequence[Point]) -> str:
    """Return the table of all ways; the first is what others are compared with."""
    first = points[0]
    lines = [
        (
            it.name,
            f"{it.top1:.2f}",
            f"{it.top1 - first.top1:+.2f}",
            f"{it.size / 1000:,.0f}",
            f"{it.size / first.size:.3f}",
        )
        for it in points
    ]
    header = ("adapters", "val top-1 %", "change", "kB", "of dense")
    return render(header, lines, "text", left=(0,), notes=())


def plot_curve(points: Sequence[Point], chosen: str, path: Path) -> Path:
    """Draw mean validation top-1 against bytes, and return `path`.

    Args:
      points: of all ways; the first is what others are compared with.
      chosen: the name of the one that is taken.
      path: of the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for it in points:
        marker = "*" if it.name == chosen else "o"
        colour = "C1" if it.name == chosen else "C0"
        axes.plot(it.size / 1000, it.top1, marker, color=colour, ms=14 if marker == "*" else 7)
        at: dict[str, Any] = {"xytext": (6, 6), "textcoords": "offset points", "fontsize": "small"}
        axes.annotate(it.name, (it.size / 1000, it.top1), **at)
    axes.axhline(points[0].top1, color="0.7", lw=1, ls="--", zorder=0)
    axes.set(
        xscale="log",
        xlabel="kB of all domains, and β once",
        ylabel="mean validation top-1 (%)",
        title=f"Without fine-tuning; taken: {chosen}",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.25, y=0.15)
    figure.savefig(path, dpi=100)
    return path
