"""Draws images a second by row and batch, ours against the peer: docs/speed.png.

    python benchmarks/chart.py

Bars are medians, their lines reach from the least to the most, and a black mark is the roofline
(benchmarks/roofline.py) where there is one. Each batch has a scale of its own.
The picture's "Source" is the digest of the rows it was drawn from.
"""

import argparse
from pathlib import Path

import figures
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
LABELS = {  # from top to bottom; scratch is the same step as finetune
    "train linear": "train linear",
    "train linear, kept features": "train linear, kept",
    "train norm": "train norm",
    "train parallel": "train parallel",
    "train series": "train series",
    "train finetune": "train finetune, scratch",
    "infer backbone": "infer backbone",
    "infer parallel, unfolded": "infer parallel",
    "infer parallel, folded": "infer parallel, folded",
}
# Of the palette of Okabe and Ito, which is told apart by the colour-blind and in grey.
COLOURS = {"radapt_jax": "#0072B2", "PyTorch": "#E69F00"}
MARK = "roofline of ours"
HEIGHT = 0.38  # of a bar, where rows are 1 apart
SHARED = ("device", "dtype", "size", "width")


def draw(rows, roofline, path):
    """Draw rows of train.csv and of roofline.csv to a file; all of one device and network.

    Raises:
      ValueError: the rows are not comparable.
    """
    source = figures.digest(rows, roofline)
    kind = figures.one_kind(rows, SHARED)
    roofline = [row for row in roofline if tuple(row[name] for name in SHARED) == kind]
    batches = sorted({int(row["batch"]) for row in rows})
    figure = Figure(figsize=(3.2 + 2.9 * len(batches), 4.8), layout="constrained")
    panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    for panel, batch in zip(panels, batches, strict=True):
        of_batch = [
            [row for row in part if int(row["batch"]) == batch] for part in (rows, roofline)
        ]
        _draw_batch(panel, *of_batch)
        panel.set(title=f"batch {batch}", xlabel="images a second", xlim=(0, None))
    panels[0].set_yticks(range(len(LABELS)), LABELS.values())
    panels[0].invert_yaxis()
    drawn = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, handle)
    names = [name for name in (*COLOURS, MARK) if name in drawn]
    handles = [drawn[name] for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    device, dtype, size, width = kind
    network = f"ResNet-26, width {width}, {size}x{size} pixels, {dtype}"
    busy = [row for row in rows if not figures.was_quiet(row)]
    quiet = f"; {len(busy)} of {len(rows)} figures beside other work" if busy else ""
    figure.suptitle(f"{network}; {device}{quiet}", fontsize="medium")
    figure.savefig(path, dpi=130, metadata={"Source": source})


def _draw_batch(panel, rows, roofline):
    """Draw the bars of one batch, and the marks of the roofline on ours."""
    places = {row: place for place, row in enumerate(LABELS)}
    for side, (who, colour) in zip((-1, 1), COLOURS.items(), strict=True):
        found = [row for row in rows if row["who"] == who and row["row"] in places]
        heights = [places[row["row"]] + side * HEIGHT / 2 for row in found]
        speeds = [float(row["images_per_second"]) for row in found]
        below = [speed - float(row["least"]) for speed, row in zip(speeds, found, strict=True)]
        above = [float(row["most"]) - speed for speed, row in zip(speeds, found, strict=True)]
        spread = {"xerr": (below, above), "error_kw": {"ecolor": "black", "lw": 1, "capsize": 2}}
        panel.barh(heights, speeds, HEIGHT, color=colour, label=who, **spread)
    marks = [row for row in roofline if row["row"] in places]
    panel.plot(
        [float(row["allowed_images_per_second"]) for row in marks],
        [places[row["row"]] - HEIGHT / 2 for row in marks],
        "k|",
        ms=11,
        mew=2,
        label=MARK if marks else None,
    )
    inference = list(LABELS).index("infer backbone")
    panel.axhline(inference - 0.5, color="0.7", lw=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="0.9", lw=0.8)
    panel.set_axisbelow(True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, default=ROOT / "benchmarks" / "train.csv")
    parser.add_argument("--roofline", type=Path, default=ROOT / "benchmarks" / "roofline.csv")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "speed.png")
    arguments = parser.parse_args()
    draw(figures.read(arguments.train), figures.read(arguments.roofline), arguments.out)
    print(f"Written to {arguments.out}.")


if __name__ == "__main__":
    main()
