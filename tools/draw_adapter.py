"""Draw docs/adapter.png, the picture of y = (f + diag(α)) * x.

python tools/draw_adapter.py
"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

SHARED, OWN = "#4c72b0", "#dd8452"


def grid(axes, x, y, size, colour, filled):
    """A 3x3 filter; only the cells in `filled` are coloured."""
    step = size / 3
    for row in range(3):
        for column in range(3):
            face = colour if (row, column) in filled else "white"
            axes.add_patch(
                Rectangle((x + column * step, y + row * step), step, step, fc=face, ec="0.3")
            )


def arrow(axes, start, end):
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color="0.2"))


def main():
    figure = Figure(figsize=(9, 3.1), layout="constrained")
    axes = figure.add_subplot()
    everywhere = {(row, column) for row in range(3) for column in range(3)}
    centre = {(1, 1)}
    axes.text(0.3, 2.0, "x", fontsize=20, style="italic", ha="center", va="center")
    grid(axes, 2.0, 2.6, 1.2, SHARED, everywhere)
    axes.text(3.4, 3.2, "f, shared by all domains: 3x3, frozen", va="center", color=SHARED)
    for index in range(3):
        grid(axes, 2.0 + 0.16 * index, 0.45 - 0.16 * index, 1.2, OWN, centre)
    axes.text(3.9, 1.0, "α, one for each domain: 1x1, trained", va="center", color=OWN)
    axes.text(3.9, 0.5, "svhn, flowers, signs, ...: 1/9 of f each", va="center", color="0.3")
    arrow(axes, (0.6, 2.1), (1.9, 3.2))
    arrow(axes, (0.6, 1.9), (1.9, 1.0))
    arrow(axes, (8.0, 3.2), (9.0, 2.2))
    arrow(axes, (8.0, 1.0), (9.0, 1.8))
    axes.text(9.25, 2.0, "+", fontsize=22, ha="center", va="center")
    arrow(axes, (9.5, 2.0), (10.2, 2.0))
    axes.text(10.5, 2.0, "y", fontsize=20, style="italic", ha="center", va="center")
    axes.set(xlim=(0, 10.8), ylim=(-0.2, 4.2), aspect="equal")
    axes.axis("off")
    figure.savefig(Path(__file__).parents[1] / "docs" / "adapter.png", dpi=110)


if __name__ == "__main__":
    main()
