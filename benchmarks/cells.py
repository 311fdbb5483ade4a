"""What the tables of README and docs are made of: text of figures, and lines of markdown."""

import figures
import numpy as np


def table(head, lines):
    """Return a table; cells are text."""
    marked = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in marked)


def mean_and_std(values):
    """Return a mean and the standard deviation of several values."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def interval(values, digits=1):
    """Return a mean with its sign and the ends of its 95 % interval."""
    if len(values) == 1:
        return f"{values[0]:+.{digits}f}"
    mean, low, high = figures.interval(values)
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def figure(row, digits=1, names=("median", "least", "most"), scale=1.0):
    """Return a row's figure with so many digits."""
    median, least, most = (f"{scale * float(row[name]):,.{digits}f}" for name in names)
    return median if row["n"] == "1" else f"{median} [{least}, {most}]"
