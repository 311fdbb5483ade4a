"""How pictures look: the same drawing for a light and for a dark page.

Colours are those of Okabe and Ito that show on both, told apart by the colour-blind; every series
has a mark of its own beside its colour, for print in grey.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
MARKS, LINES = "os^DvPX*<>", ("-", "--", ":")
THEMES = {  # background, text and grid
    "light": ("#ffffff", "#1f2328", "#d8dee4"),
    "dark": ("#15181c", "#e6e8ea", "#3a4048"),
}
DPI = 160
INCHES = 5.0  # the width of a picture: of a column of text
MARK, LETTER, ROW = 0.75, 0.075, 0.2  # inches of a legend: its mark and space, a letter, a row
MOST_LETTERS = 56  # of a name in a legend: one to a row
Style = Mapping[str, Any]  # the arguments of a line of Matplotlib


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as PNG for each theme.

    Args:
      name: what its file is called.
      title: the caption's first words.
      words: what it shows, for those who do not see it.
      png: the files, by theme.
    """

    name: str
    title: str
    words: str
    png: dict[str, bytes]


def drawn(
    name: str,
    title: str,
    words: str,
    draw: Callable[[Any], None],
    height: float = 3.4,
    legend: Mapping[str, Style] | None = None,
) -> Picture:
    """Draw a picture once for each theme.

    Args:
      name, title, words: see `Picture`.
      draw: draws on a figure of Matplotlib.
      height: in inches, the legend's apart.
      legend: what is named above the picture, and how it is drawn.
    """
    import matplotlib
    from matplotlib.figure import Figure

    entries = {short(it, MOST_LETTERS): style for it, style in (legend or {}).items()}
    columns = _columns(entries)
    height += ROW * -(-len(entries) // columns)
    png = {}
    for theme, (background, text, grid) in THEMES.items():
        style: Any = {
            **{"text.color": text, "axes.labelcolor": text, "axes.edgecolor": text},
            **{"xtick.color": text, "ytick.color": text, "axes.grid": True, "grid.color": grid},
            **{"axes.facecolor": background, "figure.facecolor": background},
            **{"axes.spines.top": False, "axes.spines.right": False, "font.size": 9},
            **{"legend.frameon": False, "axes.axisbelow": True, "savefig.facecolor": background},
            **{"text.parse_math": False},  # names may have dollar signs
        }
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(INCHES, height), layout="constrained")
            draw(figure)
            if entries:
                _name(figure, entries, columns)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=DPI)
        png[theme] = buffer.getvalue()
    return Picture(name, title, words, png)


def file_names(names: Sequence[str]) -> list[str]:
    """Return a name for a file of each name: letters, digits and underscores, no two the same.

    Those that differ in other signs, or in capitals only, which not every disk tells apart, get a
    number at the end.
    """
    found: list[str] = []
    for name in names:
        plain = "".join(it if it.isalnum() else "_" for it in name)
        endings = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
        taken = {it.casefold() for it in found}
        found.append(next(plain + it for it in endings if (plain + it).casefold() not in taken))
    return found


def short(name: str, most: int = 22) -> str:
    """Return a name that is no longer than some letters: without its middle, if need be."""
    end = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - end]}…{name[-end:]}"


def lines(names: Iterable[str]) -> dict[str, Style]:
    """Return the colour, the mark and the line of each of several series, by its name."""
    found: dict[str, Style] = {}
    for index, name in enumerate(names):
        turn, place = divmod(index, len(COLOURS))
        line, mark = LINES[turn % len(LINES)], MARKS[index % len(MARKS)]
        found[name] = {"color": COLOURS[place], "marker": mark, "linestyle": line}
    return found


def marks(names: Iterable[str]) -> dict[str, Style]:
    """Return the same without lines."""
    return {name: {**style, "linestyle": "none"} for name, style in lines(names).items()}


def _columns(names: Iterable[str]) -> int:
    """Return how many names of a legend fit side by side, at most three."""
    longest = max(map(len, names), default=0)
    return max(1, min(3, int(INCHES / (MARK + LETTER * longest))))


def _name(figure: Any, entries: Mapping[str, Style], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], lw=1, ms=5, **style) for style in entries.values()]
    figure.legend(handles, list(entries), loc="outside upper left", ncols=columns)
