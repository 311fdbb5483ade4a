"""The table of a finished run's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from radapt_jax.evaluation.result import Result
from radapt_jax.report import render

HEADER = (
    *("domain", "method", "classes", "trained on", "evaluated on"),
    *("top-1 %", "parameters", "ratio"),
)
VALIDATION = (
    "validation misleads here: parallel adapters of the original code have 44 % on val and 64 % on "
    "test of aircraft, 75 % and 51 % of ucf101"
)


def misleading(rows: Sequence[Result]) -> bool:
    """Return whether any top-1 is on validation images of the Visual Decathlon."""
    return any(row.challenge and row.split.startswith("val") for row in rows)


def _cells(row: Result, thousands: str = ",") -> tuple[str, ...]:
    return (
        row.domain,
        row.method,
        f"{row.classes:{thousands}}",
        f"{row.trained_on} ({row.images:{thousands}})",
        f"{row.split} ({row.count:{thousands}})",
        "-" if row.top1 is None else f"{row.top1:.2f}",
        f"{row.parameters:{thousands}}",
        f"{row.ratio:.3f}",
    )


def _total(rows: Sequence[Result]) -> str:
    basis = max((row.basis for row in rows), default=0.0)
    ratio = sum(row.ratio for row in rows) + basis
    shared = f" ({basis:.2f} of it the shared β)" if basis else ""
    what = f"{ratio:.2f} times the backbone's parameters in all{shared}, heads apart."
    return f"{len(rows)} domains: {what if any(row.source for row in rows) else 'they add ' + what}"


def csv_of_runs(runs: Mapping[str, Sequence[Result]]) -> str:
    """Return one CSV table of several runs, by name, which its first column has."""
    lines = [(name, *_cells(row, "")) for name, rows in runs.items() for row in rows]
    return render.render(("run", *HEADER), lines, "csv")


def table(rows: Sequence[Result], style: str = "text") -> str:
    """Return the table of all domains, and under it what they cost together.

    Validation figures of the Visual Decathlon get a note. CSV has no lines under the table, and no
    commas in its numbers.

    Args:
      rows: the results, one a domain.
      style: one of `render.STYLES`.

    Raises:
      ValueError: an unknown style.
    """
    lines = [_cells(row, "" if style == "csv" else ",") for row in rows]
    notes = [_total(rows), *([f"{VALIDATION}."] if misleading(rows) else [])]
    return render.render(HEADER, lines, style, left=(0, 1, 3, 4), notes=notes)
