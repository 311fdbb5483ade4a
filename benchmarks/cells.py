"""What the tables of README and docs are made of: text of figures, and lines of markdown."""

import figures
import numpy as np

DISTURBED = "†"


def table(head, lines):
    """Return a table; cells are text."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


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


def marked(row, text):
    """Return a cell, marked if its row was measured beside other work."""
    return text if figures.was_quiet(row) else f"{text} {DISTURBED}"


def note_of(lines):
    """Return what the mark means, for below a table; nothing if no row has it."""
    note = f"\n\n{DISTURBED}: other processes used more than a twentieth of the machine meanwhile."
    return "" if all(map(figures.was_quiet, lines)) else note
