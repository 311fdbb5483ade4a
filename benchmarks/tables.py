"""Draws the tables of README.md and docs/*.md anew from the CSV files of this folder.

    python benchmarks/tables.py

A table stands between two comments, of which the first names it (benchmarks/blocks.py) and the
files whose rows it shows:

    <!-- table: serve serve_small.csv serve.csv -->
    <!-- end -->

What is between them is replaced. Below each table stands what its rows say of themselves: how many
runs, on what, with which versions, at which commit.
"""

import os
import re
from pathlib import Path

import blocks
import figures

ROOT = Path(__file__).parents[1]
CSVS = ROOT / "benchmarks"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKS = re.compile(r"(<!-- table: (\w+) ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
SHOWN = 4  # commits in a caption
SETTING = {  # columns that a caption gives where all rows share them, and how
    **{"domain": "{}", "batch": "batch {}", "steps": "{} steps", "size": "{} px"},
    **{"width": "width {}", "dtype": "{}"},
}


def drawn(text, folder, csvs=CSVS):
    """Return a page's text with its tables drawn anew; links in them start at `folder`."""

    def block(found):
        first, name, files, last = found.groups()
        paths = [csvs / file for file in files.split()]
        sheets = [figures.read(path) for path in paths]
        if not any(sheets):
            return f"{first}Not measured yet: there is no {' or '.join(files.split())}.\n{last}"
        captions = [
            caption(rows, path, folder) for rows, path in zip(sheets, paths, strict=True) if rows
        ]
        return "\n".join([first.strip(), blocks.BLOCKS[name](*sheets), "", *captions, last])

    return MARKS.sub(block, text)


def caption(rows, path, folder):
    """Return a sentence that says what the rows of a file are of."""
    link = f"[{path.name}]({os.path.relpath(path, folder)})"
    if "device" not in rows[0]:
        return f"{link}: figures of others, as they were given to us."
    device, *_ = figures.one_kind(rows, ("device",))
    shared = {name: list(dict.fromkeys(row.get(name) for row in rows)) for name in SETTING}
    setting = [
        SETTING[name].format(values[0].removesuffix(".0"))
        for name, values in shared.items()
        if values != [None] and len(values) == 1
    ]
    if "seed" in rows[0] and "backbone" not in rows[0]:
        seeds = {}
        for row in rows:
            if row["test_top1" if "test_top1" in row else "val_top1"]:
                case = tuple(row.get(it) for it in ("method", "way", "training", "change"))
                seeds.setdefault(case, set()).add(row["seed"])
        counts = sorted({len(it) for it in seeds.values()})
    elif "seed" in rows[0]:
        counts = [len(figures.whole_seeds(rows))]
    else:
        counts = sorted({int(row["n"]) for row in rows})
    versions = {row.get("versions") or f"jax {row['jax']}" for row in rows}
    commits = sorted({row["commit"] for row in rows})
    dirty = any(commit.endswith("-dirty") for commit in commits)
    facts = [f"n = {_either(counts)}", *setting, device, *sorted(versions)]
    few = len(commits) <= SHOWN
    where = f"at commit {_either(commits)}" if few else f"at {len(commits)} commits, which it names"
    facts.append(f"{where}{', where code had been edited' if dirty else ''}")
    return f"{link}: {'; '.join(facts)}."


def _either(values):
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def main():
    for page in PAGES:
        text = page.read_text()
        new = drawn(text, page.parent)
        if new != text:
            page.write_text(new)
            print(f"Drawn anew: {page.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
