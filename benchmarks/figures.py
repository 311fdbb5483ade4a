"""CSV files of measured figures: a new figure takes the place of the one with the same key."""

import csv
import hashlib
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import quiet
from scipy import stats

TRAINED = ("backbone", "domain", "method", "seed")  # what a row of a study of transfer is of


def read(path):
    """Return the rows of a file as text; none where there is no file."""
    if not Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def put(path, columns, key, lines, allow_dirty=False):
    """Write lines into a file: those with the same `key` columns are replaced, others stay.

    It is called as the figures come, and the file is exchanged whole, so that a run that is
    stopped keeps what it has.

    Raises:
      SystemExit: a line is of an edited tree, and `allow_dirty` is not set.
    """
    refuse_edited(lines, allow_dirty)
    rows = {tuple(row[name] for name in key): row for row in read(path)}
    for line in lines:
        rows[tuple(str(line[name]) for name in key)] = line
    part = Path(f"{path}.part")
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows.values())
    os.replace(part, path)


def refuse_edited(lines, allow_dirty):
    """End where a line is not of a commit alone: the code may be edited while a run measures."""
    if allow_dirty:
        return
    for line in lines:
        if not re.fullmatch("[0-9a-f]{7,}", line["commit"]):
            first = ", ".join(map(str, list(line.values())[:3]))  # which tell rows of studies apart
            name = line.get("row") or line.get("what") or first
            raise SystemExit(
                f"error: found {name!r} measured at {line['commit']}, an edited tree; expected a "
                "commit.\nCommit or stash the edits and measure it anew, or try things out with "
                "--allow-dirty."
            )


def one_kind(rows, names):
    """Return the values that all rows share in columns of these names.

    Raises:
      ValueError: they do not share them.
    """
    kinds = {tuple(row[name] for name in names) for row in rows}
    if len(kinds) != 1:
        raise ValueError(
            f"found rows of {sorted(kinds)}; expected one {', '.join(names)}. "
            "Measure all rows of the file anew on one machine, or write these to another (--out)."
        )
    return kinds.pop()


def was_quiet(row):
    """Tell whether a row was measured on a quiet machine, as far as that is known."""
    return quiet.is_quiet(others_of([row]))


def others_of(rows):
    """Return the largest share that others used in some rows; None if it is not known."""
    return max((float(row["others"]) for row in rows if row.get("others")), default=None)


def digest(*sheets):
    """Return a digest of rows, by which a picture says what it was drawn from."""
    return hashlib.sha256(json.dumps(sheets).encode()).hexdigest()


def spread(values, digits=1):
    """Return median, least and most as text."""
    return tuple(f"{it:.{digits}f}" for it in (np.median(values), min(values), max(values)))


def whole_seeds(rows):
    """Return the seeds of a study with a figure on test images for all that its rows are of."""
    tested = {tuple(row[name] for name in TRAINED) for row in rows if row["test_top1"]}
    *others, seeds = (list(dict.fromkeys(row[name] for row in rows)) for name in TRAINED)
    return [it for it in seeds if tested >= set(itertools.product(*others, [it]))]


def interval(values):
    """Return the mean of two or more values and the ends of its 95 % interval (Student's t)."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return np.mean(values), np.mean(values) - half, np.mean(values) + half
