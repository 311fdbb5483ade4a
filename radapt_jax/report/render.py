"""Renders a table of strings for a terminal, Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence

Line = Sequence[str]
Renderer = Callable[[Line, Sequence[Line], Collection[int], Sequence[str]], str]
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def _text(header: Line, lines: Sequence[Line], left: Collection[int], notes: Line) -> str:
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    formatted = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *lines)
    ]
    rule = "-" * max(map(len, formatted))
    return "\n".join([formatted[0], rule, *formatted[1:], *([rule, *notes] if notes else [])])


def _markdown(header: Line, lines: Sequence[Line], left: Collection[int], notes: Line) -> str:
    rule = ["---" if column in left else "---:" for column in range(len(header))]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in (header, *lines)]
    table = [f"| {' | '.join(line)} |" for line in (escaped[0], rule, *escaped[1:])]
    return "\n\n".join(["\n".join(table), *notes])


def _csv(header: Line, lines: Sequence[Line], left: Collection[int], notes: Line) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *lines])
    return file.getvalue().removesuffix("\n")


def _latex(header: Line, lines: Sequence[Line], left: Collection[int], notes: Line) -> str:
    columns = "".join("l" if column in left else "r" for column in range(len(header)))
    first, *rest = (
        " & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in (header, *lines)
    )
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            first,
            r"\midrule",
            *rest,
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {line}" for note in notes for line in note.splitlines()),
        ]
    )


STYLES: Mapping[str, Renderer] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
}


def render(
    header: Line,
    lines: Sequence[Line],
    style: str = "text",
    *,
    left: Collection[int] = (0,),
    notes: Sequence[str] = (),
) -> str:
    """Return a table as a string, without a newline at its end.

    Args:
      header, lines: cells; every line has as many as the header.
      style: "text", "markdown", "csv", or "latex" (a `tabular` that needs the package booktabs).
      left: indices of the columns to align left; the others are aligned right.
      notes: lines under the table; they become comments in LaTeX and are left out of CSV.

    Raises:
      ValueError: an unknown style, or a line with more or fewer cells than the header.
    """
    if style not in STYLES:
        raise ValueError(f"found table style {style!r}; expected one of {', '.join(STYLES)}.")
    for line in lines:
        if len(line) != len(header):
            raise ValueError(
                f"found a line of {len(line)} cells: {list(line)}; expected {len(header)}, one "
                f"for each of {list(header)}."
            )
    return STYLES[style](header, lines, left, notes)
