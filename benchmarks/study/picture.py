"""Draws mean top-1 over nine domains against parameters, of the study: docs/study.png.

    python benchmarks/study/picture.py

A point is a method, the main ones are named; its line is the standard deviation over seeds, if
there are several. Methods have different seeds: what is paired is in the tables. The picture's
"Source" is the digest of its rows.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import figures
import numpy as np
from machine import ROOT
from matplotlib.figure import Figure
from study_blocks import HEADLINE, SHARE, means, parameters, whole

SMALLER = "made smaller"  # its points are drawn above others
# Of the palette of Okabe and Ito, with a mark each: told apart by the colour-blind and in grey.
GROUPS = {
    "no adapters": (("linear", "norm", "finetune", "scratch"), "#000000", "s"),
    SMALLER: (("joint", "by domain", "parallel, int"), "#009E73", "v"),
    "parallel adapters": (("parallel",), "#0072B2", "o"),
    "others": ((), "#E69F00", "D"),
}
PLACED = ("parallel, early", "parallel, mid", "parallel, late")
NAMED = (*HEADLINE, "finetune, rate 0.01", "scratch", *PLACED)  # the table has the others
NEAR, CLOSE = 1.07, 1.0  # points of one place: how far apart, as a factor and in percent
ACROSS = "parameters of backbone and nine domains over the backbone's (without heads; log scale)"
UP = "top-1, mean over nine domains and a method's seeds, %"
GAP, ABOVE = 1.035, 0.35  # from a point to its name, as a factor and in percent


def draw(rows, path):
    """Draw rows of study.csv to a file."""
    found = whole(rows)
    points = {
        name: (parameters(seeds), means(seeds))
        for name, seeds in found.items()
        if not SHARE.fullmatch(name)
    }
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.subplots()
    for group, (_, colour, mark) in GROUPS.items():
        names = [name for name in points if _group(name) == group]
        if names:
            across = [points[name][0] for name in names]
            up = [points[name][1].mean() for name in names]
            spread = [
                np.std(points[name][1], ddof=1) if len(points[name][1]) > 1 else 0 for name in names
            ]
            style = {"fmt": mark, "color": colour, "label": group, "capsize": 2, "ms": 6}
            axes.errorbar(across, up, spread, **style, zorder=3 if group == SMALLER else 2)
    axes.set(xscale="log", xlabel=ACROSS, ylabel=UP)
    ticks = [1, 1.1, 1.25, 1.5, 2, 3, 5, 10]
    axes.set_xticks(ticks, [f"{it:g}" for it in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.97, 14)
    axes.grid(color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    named = {name: points[name] for name in NAMED if name in points}
    _label(axes, {name: (across, up.mean()) for name, (across, up) in named.items()})
    figure.savefig(path, dpi=130, metadata={"Source": figures.digest(rows)})


def _group(name):
    starts = ((group, start) for group, (names, *_) in GROUPS.items() for start in names)
    return next((group for group, start in starts if name.startswith(start)), "others")


def _short(name):
    return name.removeprefix("parallel, ") if name in PLACED else name


def _label(axes, points):
    """Write the names of points beside or above them, those of one place below one another."""
    for found in _places(points):
        text = "\n".join(_short(name) for name, _, up in sorted(found, key=lambda it: -it[2]))
        height = np.mean([up for *_, up in found])
        if 1.2 < found[0][1] < 2:  # with points beside it
            place, how = (found[0][1], height + ABOVE), {"ha": "center", "va": "bottom"}
        else:
            edge = max(it[1] for it in found) * GAP
            place, how = (edge, height), {"ha": "left", "va": "center"}
        axes.annotate(text, place, fontsize=8, **how)


def _places(points):
    """Return points in groups whose names would meet: near one another, and close in height."""
    columns, places = [], []
    for name, (across, up) in sorted(points.items(), key=lambda it: it[1]):
        if columns and across / columns[-1][0][1] < NEAR:
            columns[-1].append((name, across, up))
        else:
            columns.append([(name, across, up)])
    for column in columns:
        column.sort(key=lambda it: it[2])
        for point, below in zip(column, [None, *column], strict=False):
            if below and point[2] - below[2] < CLOSE:
                places[-1].append(point)
            else:
                places.append([point])
    return places


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=ROOT / "benchmarks" / "study.csv")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "study.png")
    arguments = parser.parse_args()
    draw(figures.read(arguments.study), arguments.out)
    print(f"Written to {arguments.out}.")


if __name__ == "__main__":
    main()
