"""Pictures of a run's layers: the singular values of its adapters, and how far filters moved."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax.adapters.base import is_adapters
from radapt_jax.compress.which import kernels, sources
from radapt_jax.models.fold import can_fold
from radapt_jax.report.page.look import Picture, drawn, lines, short
from radapt_jax.report.page.runs import Run
from radapt_jax.utils import trees

GRID = np.linspace(0, 1, 51)
ROOM = 3  # layers that a stage's name needs on the axis


def spectra(run: Run) -> Picture | None:
    """Singular values of the adapters over the largest: the mean over layers, by domain."""
    found = {}
    for row in run.adapted:
        member = run.family[row.domain]
        if member.has_own_weights or member.spec.adapter.kind not in sources():
            continue
        found[row.domain] = _mean_spectrum(kernels(member))
    if not found:
        return None

    styles = lines(found)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for domain, values in found.items():
            axes.plot(GRID, values, lw=1, markevery=5, ms=4, **styles[domain])
        axes.set(xlabel="rank / full rank", ylabel="singular value / largest", ylim=(0, 1.02))

    half = {domain: values[len(GRID) // 2] for domain, values in found.items()}
    words = "Mean over layers; at half of the full rank: " + ", ".join(
        f"{domain} {value:.2f}" for domain, value in half.items()
    )
    return drawn("spectra", "Singular values of the adapters", words, draw, 3.0, styles)


def _mean_spectrum(matrices: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return singular values over the largest at `GRID`, the mean over layers that are not 0."""
    found = []
    for matrix in matrices.values():
        values = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
        if values[0] > 0:
            found.append(np.interp(GRID, np.linspace(0, 1, len(values)), values / values[0]))
    return np.mean(found, axis=0) if found else np.zeros_like(GRID)


def moved(run: Run) -> Picture | None:
    """How far each filter is from the shared one, in percent of it: by depth and domain.

    It is the folded filter that is compared, so that kinds of adapters can be.
    """
    changes = {}
    for row in run.adapted:
        member = run.family[row.domain]
        if member.has_own_weights or can_fold(member.spec):
            changes[row.domain] = changes_of(run, row.domain)
    layers = list(next(iter(changes.values()))) if changes else []
    changes = {domain: it for domain, it in changes.items() if list(it) == layers}
    if not layers:
        return None
    values = np.array([[it[layer] for layer in layers] for it in changes.values()])

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        image = axes.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
        axes.grid(False)
        axes.set_yticks(range(len(changes)), map(short, changes))
        name_stages(axes, layers)
        figure.colorbar(image, ax=axes, label="change of the filter (%)", location="top")

    words = "Mean change over layers: " + ", ".join(
        f"{domain} {row.mean():.1f} %" for domain, row in zip(changes, values, strict=True)
    )
    return drawn("moved", "How far each layer moved", words, draw, 1.9 + 0.24 * len(changes))


def changes_of(run: Run, domain: str) -> dict[str, float]:
    """Return the change of each filter in percent, |f_domain - f| / |f|, in the network's order."""
    family = run.family
    shared = trees.flatten(family.shared.params)
    member = family[domain]
    if member.has_own_weights:
        own = trees.flatten(family.variables(domain)["params"])
    else:
        own = trees.flatten(family.fold(domain).weights.variables["params"])
    found = {}
    for path in sorted(itertools.filterfalse(is_adapters, shared), key=_depth):
        before, after = (np.asarray(it[path], np.float64) for it in (shared, own))
        found[path.removesuffix("/kernel")] = 100 * float(
            np.linalg.norm(after - before) / np.linalg.norm(before)
        )
    return found


def _depth(path: str) -> tuple[Any, ...]:
    """Return what sorts a layer's path: the stem first, numbers by value."""
    first = path.split("/")[0]
    numbers = map(int, re.findall(r"\d+", path))
    return (not first.startswith("stem"), *numbers, path)


def name_stages(axes: Any, layers: Sequence[str]) -> None:
    """Write the names of stages below their first layers, but for those of no room for it."""
    firsts: dict[str, int] = {}
    for index, layer in enumerate(layers):
        stage = layer.split("/")[0]
        if stage not in firsts and index and index - max(firsts.values()) < ROOM:
            firsts.popitem()
        firsts.setdefault(stage, index)
    axes.set_xticks(list(firsts.values()), list(firsts), ha="left")
    axes.set(xlabel="layer, from the images on")
