"""The ranks of a run's adapters by layer, of those kinds that have ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from radapt_jax.adapters.factors import WithRank
from radapt_jax.report.page.layers import name_stages
from radapt_jax.report.page.look import Picture, drawn, lines
from radapt_jax.report.page.runs import Run

MOST = {"color": "0.5", "linestyle": "-"}  # the highest ranks there can be


def ranks(run: Run) -> Picture | None:
    """Rank by layer, a line for each choice of ranks, which is named after its domains.

    A grey line is the highest rank there can be.
    """
    members = [run.family[row.domain] for row in run.adapted]
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    most: dict[str, int] = {}
    for member in members:
        kind, sites = member.spec.kind, member.spec.sites()
        if not issubclass(kind, WithRank) or member.has_own_weights:
            continue
        chosen = tuple((site.conv, kind.rank(member.spec.adapter, site)) for site in sites)
        groups.setdefault(chosen, []).append(member.domain.name)
        most |= {it.conv: max(most.get(it.conv, 1), kind.highest_rank(it)) for it in sites}
    if not most:
        return None
    layers = [it.path for it in run.family.shared.backbone.convolutions() if it.path in most]
    found = {_named(domains): dict(chosen) for chosen, domains in groups.items()}
    styles = lines(found)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([most[it] for it in layers], lw=1, **MOST)
        for name, it in found.items():
            values = [it.get(layer, np.nan) for layer in layers]
            axes.plot(values, lw=1, ms=4, **styles[name])
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(ylabel="rank")
        name_stages(axes, layers)

    words = "; ".join(
        f"{name}: {min(it.values())} to {max(it.values())}, mean {np.mean(list(it.values())):.1f}"
        for name, it in found.items()
    )
    words += f"; the highest there can be: {min(most.values())} to {max(most.values())}"
    return drawn("ranks", "Ranks by layer", words, draw, 3.0, {**styles, "the highest": MOST})


def _named(domains: list[str]) -> str:
    """Return the domains' names, or how many there are beside the first."""
    return ", ".join(domains) if len(domains) < 4 else f"{domains[0]} and {len(domains) - 1} more"
