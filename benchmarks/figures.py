"""CSV files of measured figures: a new figure takes the place of the one with the same key."""

import csv
import os
from pathlib import Path

import numpy as np


def read(path):
    """Return the rows of a file as text; none where there is no file."""
    if not Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def put(path, columns, key, lines):
    """Write lines into a file: those with the same `key` columns are replaced, others stay.

    It is called as the figures come, and the file is exchanged whole, so that a run that is
    stopped keeps what it has.
    """
    rows = {tuple(row[name] for name in key): row for row in read(path)}
    for line in lines:
        rows[tuple(str(line[name]) for name in key)] = line
    part = Path(f"{path}.part")
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows.values())
    os.replace(part, path)


def spread(values, digits=1):
    """Return median, least and most as text."""
    return tuple(f"{it:.{digits}f}" for it in (np.median(values), min(values), max(values)))
