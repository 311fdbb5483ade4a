"""Pictures of training: the domains of one run, or several runs by domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax.report.page.look import Picture, drawn, lines
from radapt_jax.report.page.runs import Run

Rows = Sequence[Mapping[str, str]]  # of the metrics
Lines = dict[str, list[tuple[float, float]]]  # points by the line's name
COLUMNS = {  # split and column of the metrics
    "validation top-1 (%)": ("val", "top1"),
    "training loss (nats)": ("train", "loss"),
}
MARKED = 10  # points of a line that get a mark


def of_run(run: Run) -> Picture | None:
    """Validation top-1 by epoch, or the training loss where there are no validation images."""
    first = dict(list(_panels(run.curves, {}).items())[:1])
    return _drawn("training", "Training", "epoch", first, list(run.curves))


def compared(runs: Sequence[Run]) -> list[Picture]:
    """Of each domain, validation top-1 and training loss, a line for each run that trained it.

    They are drawn by epoch, or by images seen where the runs had not the same number of images to
    train on, so that an epoch of one is no epoch of another.
    """
    domains = dict.fromkeys(domain for run in runs for domain in run.curves)
    return [it for domain in domains if (it := _compared(runs, domain)) is not None]


def _compared(runs: Sequence[Run], domain: str) -> Picture | None:
    images = {run.name: row.images for run in runs for row in run.results if row.domain == domain}
    curves = {run.name: run.curves[domain] for run in runs if domain in run.curves}
    unit, lengths = "epoch", dict.fromkeys(curves, 1.0)
    if len({images[name] for name in curves}) > 1:
        unit, lengths = "images seen (thousands)", {name: images[name] / 1000 for name in curves}
    names = [run.name for run in runs]
    panels = _panels(curves, lengths)
    return _drawn(f"training_{domain}", f"Training on {domain}", unit, panels, names)


def _panels(curves: Mapping[str, Rows], lengths: Mapping[str, float]) -> dict[str, Lines]:
    """Return lines by what they show, of epochs with some lengths (default: 1); none is empty."""
    panels = {
        label: {
            name: [
                (lengths.get(name, 1) * float(row["epoch"]), float(row[column]))
                for row in rows
                if row["split"] == split
            ]
            for name, rows in curves.items()
        }
        for label, (split, column) in COLUMNS.items()
    }
    filled = {
        label: {name: points for name, points in found.items() if points}
        for label, found in panels.items()
    }
    return {label: found for label, found in filled.items() if found}


def _drawn(
    name: str, title: str, unit: str, panels: Mapping[str, Lines], names: list[str]
) -> Picture | None:
    """Draw lines in panels, one below the other; None: there are none.

    Args:
      name, title: of the picture.
      unit: of the axis that the panels share.
      panels: the points of lines by the lines' names, by what is drawn.
      names: those lines and perhaps others, whose colours are left out.
    """
    if not panels:
        return None
    there = set().union(*panels.values())
    styles = {line: style for line, style in lines(names).items() if line in there}

    def draw(figure: Any) -> None:
        places = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, (label, found) in zip(places, panels.items(), strict=True):
            for line, points in found.items():
                every = -(-len(points) // MARKED)
                shown = {"lw": 1, "ms": 4, "markevery": every, **styles[line]}
                axes.plot(*np.transpose(points), **shown)
            axes.set(ylabel=label)
        places[-1].set(xlabel=unit)

    words = "; ".join(
        f"{label} by {unit}, at the end: "
        + ", ".join(f"{line} {points[-1][1]:.3g}" for line, points in found.items())
        for label, found in panels.items()
    )
    return drawn(name, title, words, draw, 1.2 + 1.8 * len(panels), styles)
