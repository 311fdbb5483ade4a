"""Pictures of accuracy: by domain, and against what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from radapt_jax.evaluation.result import Result
from radapt_jax.report.page.look import Picture, drawn, marks, short
from radapt_jax.report.page.runs import Run

FLOAT32 = 4  # bytes of a value

SPREAD = 0.28  # of the marks of a domain, in rows


def accuracy(runs: Sequence[Run]) -> Picture:
    """Top-1 by domain, a mark for each run, one below the other."""
    domains = list(dict.fromkeys(row.domain for run in runs for row in run.results))
    styles = marks(run.name for run in runs)
    below = np.linspace(-SPREAD, SPREAD, len(runs)) if len(runs) > 1 else [0.0]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for run, shift in zip(runs, below, strict=True):
            known = [row for row in run.results if row.top1 is not None]
            places = [domains.index(row.domain) + shift for row in known]
            axes.plot([row.top1 for row in known], places, clip_on=False, ms=5, **styles[run.name])
        axes.set(xlabel="top-1 (%)", xlim=(0, 100), ylim=(len(domains) - 0.5, -0.5))
        axes.set_yticks(range(len(domains)), map(short, domains))

    words = "; ".join(
        f"{run.name}: "
        + ", ".join(f"{it.domain} {it.top1:.1f} %" for it in run.results if it.top1 is not None)
        for run in runs
    )
    height = 0.7 + len(domains) * max(0.24, 0.13 * len(runs))
    return drawn("accuracy", "Accuracy by domain", words, draw, height, styles)


def cost(runs: Sequence[Run], what: str) -> Picture | None:
    """Top-1 against what domains take: "parameters" or "bytes"; None without two points.

    Of several runs, each is a point: its mean top-1 over the domains that all of them have, and
    what these take together, what they share of adapters once; a line joins those that no other
    beats in both. Of one run, each domain is a point.
    """
    points = _costs(runs, what)
    if len(points) < 2:
        return None
    unit = "kB of adapter files" if what == "bytes" else "parameters that domains add"
    unit += ", of domains that all runs have, with β" if len(runs) > 1 else ", a domain"
    names = [run.name for run in runs] if len(runs) > 1 else [name for name, *_ in points]
    styles = marks(names)
    styles = {name: styles[name] for name, *_ in points}

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        if len(runs) > 1:
            best = front([point[1:] for point in points])
            axes.step(*zip(*best, strict=True), where="post", color="0.5", lw=1, zorder=1)
        for name, size, top1 in points:
            axes.plot(size, top1, **styles[name])
        label = "top-1 (%), mean" if len(runs) > 1 else "top-1 (%)"
        axes.set(xlabel=unit, ylabel=label)
        axes.margins(0.12)
        _sized(axes.xaxis, [size for _, size, _ in points])

    words = ", ".join(f"{name}: {size:,.0f} {unit}, {top1:.1f} %" for name, size, top1 in points)
    return drawn(f"cost_{what}", f"Accuracy against {what}", words, draw, 3.0, styles)


def _sized(axis: Any, sizes: Sequence[float]) -> None:
    """Write whole numbers on an axis; its scale is logarithmic where sizes differ tenfold."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    decades = float(np.log10(max(sizes) / max(min(sizes), 1e-3)))
    if decades > 1:
        axis.axes.set_xscale("log")
        axis.set_major_locator(LogLocator(subs=(1, 3) if decades < 3 else (1,)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter("{x:,.10g}")


def _costs(runs: Sequence[Run], what: str) -> list[tuple[str, float, float]]:
    """Return (name, parameters or kB, top-1) of each point."""

    def size_of(run: Run, row: Result) -> float | None:
        if what == "parameters":
            return row.parameters
        return run.sizes[row.domain] / 1000 if row.domain in run.sizes else None

    known = [
        {
            row.domain: (size, row.top1)
            for row in run.adapted
            if row.top1 is not None and (size := size_of(run, row)) is not None
        }
        for run in runs
    ]
    if len(runs) == 1:
        return [(domain, *point) for domain, point in known[0].items()]
    shared = set.intersection(*(set(it) for it in known if it)) if any(known) else set()
    if not shared:
        return []
    return [
        (
            run.name,
            sum(points[it][0] for it in shared) + _beta(run, shared, what),
            float(np.mean([points[it][1] for it in shared])),
        )
        for run, points in zip(runs, known, strict=True)
        if points
    ]


def _beta(run: Run, domains: Iterable[str], what: str) -> float:
    """Return the parameters or kB of what a run's domains share of their adapters, if any do."""
    if not any(row.basis for row in run.adapted if row.domain in domains):
        return 0.0
    count = run.family.shared.basis_parameters()
    return count if what == "parameters" else FLOAT32 * count / 1000


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, gain) that no other beats in both, from the cheapest on."""
    found: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda it: (it[0], -it[1])):
        if not found or gain > found[-1][1]:
            found.append((cost, gain))
    return found
