"""Table 1 of the paper (CVPR 2018) with our results in it, and the points behind a score."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.decathlon.published import Published, published
from radapt_jax.decathlon.score import decathlon_points, largest_error
from radapt_jax.evaluation.result import Result
from radapt_jax.report import results as report_results
from radapt_jax.report.render import render
from radapt_jax.report.results import VALIDATION, misleading

SHORT = ("ImNet", "Airc.", "C100", "DPed", "DTD", "GTSR", "Flwr", "OGlt", "SVHN", "UCF")
HEADER = ("method", "#par", *SHORT, "mean", "S")
CSV_HEADER = (*HEADER, "domains", "note")
POINTS_HEADER = (
    "domain",
    "accuracy %",
    "error %",
    "largest error %",
    "points",
    "one more % brings",
)
PUBLISHED_NOTE = "evaluated on the challenge's test split"


@dataclasses.dataclass(frozen=True)
class Line:
    """One of our lines in the table.

    Args:
      label: of the line, e.g. the name of the recipe or of the run.
      method: the recipe's name; the line with this key in `published()` follows underneath.
      ratio: parameters of all domains over one backbone's; None: not known.
      accuracies: top-1 in percent by decathlon domain; None: not evaluated.
      note: what it was trained and evaluated on, e.g. "trained on train, evaluated on val".
    """

    label: str
    method: str
    ratio: float | None
    accuracies: Mapping[str, float | None]
    note: str


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A line of the table as numbers; mean and score are over the domains that are there."""

    label: str
    ratio: float | None
    accuracies: Sequence[float | None]
    score: float | None
    note: str

    @property
    def known(self) -> list[float]:
        return [accuracy for accuracy in self.accuracies if accuracy is not None]

    @property
    def mean(self) -> float | None:
        return sum(self.known) / len(self.known) if self.known else None

    def cells(self) -> tuple[str, ...]:
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}x"
        score = "-" if self.score is None else f"{self.score:,.0f}{_part(len(self.known))}"
        percent = ("-" if it is None else f"{it:.2f}" for it in (*self.accuracies, self.mean))
        return (self.label, ratio, *percent, score)

    def fields(self) -> tuple[str, ...]:
        """Return the cells for CSV: full numbers without units, empty if missing."""
        numbers = (self.ratio, *self.accuracies, self.mean, self.score)
        plain = ("" if number is None else f"{number:.10g}" for number in numbers)
        return (self.label, *plain, str(len(self.known)), self.note)


def _part(count: int) -> str:
    return "" if count == len(DECATHLON) else f" ({count} of {len(DECATHLON)})"


def _entry(
    label: str, ratio: float | None, accuracies: Mapping[str, float | None], note: str
) -> _Entry:
    known = {name: it for name, it in accuracies.items() if it is not None}
    points = decathlon_points(known) if known else {}
    return _Entry(
        label=label,
        ratio=ratio,
        accuracies=[points[name].accuracy if name in points else None for name in DECATHLON],
        score=sum(domain.points for domain in points.values()) if points else None,
        note=note,
    )


def _of_paper(paper: Published) -> _Entry:
    label = f"published: {paper.method} [{paper.venue}]"
    return _entry(label, paper.ratio, paper.accuracies, PUBLISHED_NOTE)


def decathlon_table(
    results: Sequence[Line], style: str = "text", *, all_published: bool = False
) -> str:
    """Return the paper's table 1: our results, each above the published one of its method.

    The columns are the parameters over one backbone's, top-1 in percent on ten domains, their
    mean and the decathlon score S. If domains are missing, mean and S are over the others, and S
    says how many of ten these are. Notes say what our lines were trained and evaluated on.

    Args:
      results: our lines; a method that is in no paper has no published line.
      style: "text", "markdown", "csv" (plain numbers, and columns for the number of domains and
        the note) or "latex".
      all_published: append the other published results.

    Raises:
      ValueError: an unknown style, or accuracies that `decathlon_points` refuses.
    """
    papers = published()
    entries, notes = [], []
    for result in results:
        ours = _entry(f"ours: {result.label}", result.ratio, result.accuracies, result.note)
        entries.append(ours)
        notes.append(f"{ours.label}: {ours.note}.")
        if result.method in papers:
            entries.append(_of_paper(papers[result.method]))
    if all_published:
        shown = {result.method for result in results}
        entries += [_of_paper(paper) for key, paper in papers.items() if key not in shown]
    if len(entries) > len(results):
        notes.append(f"published: {PUBLISHED_NOTE}.")
    if style == "csv":
        return render(CSV_HEADER, [entry.fields() for entry in entries], style)
    return render(HEADER, [entry.cells() for entry in entries], style, notes=notes)


def results_of(runs: Mapping[str, Sequence[Result]]) -> list[Line]:
    """Return a line for every run that has domains of the challenge.

    If two domains have the same images, the first one counts.

    Args:
      runs: results by the name of the run.
    """
    own = {name: _of_challenge(rows) for name, rows in runs.items()}
    methods = {name: _method(ours) for name, ours in own.items()}
    results = []
    for name, ours in own.items():
        if not ours:
            continue
        method = methods[name]
        several = list(methods.values()).count(method) > 1
        backbone = 0.0 if any(row.source for row in ours) else 1.0
        trained = " or ".join(dict.fromkeys(row.trained_on for row in ours))
        evaluated = " or ".join(dict.fromkeys(row.split for row in ours))
        caution = f"; {VALIDATION}" if misleading(ours) else ""
        results.append(
            Line(
                label=f"{method} ({name})" if several else method,
                method=method,
                ratio=backbone + sum(row.ratio for row in ours) + ours[0].basis,
                accuracies={row.challenge: row.top1 for row in ours if row.challenge},
                note=f"trained on {trained}, evaluated on {evaluated}{caution}",
            )
        )
    return results


def _of_challenge(rows: Sequence[Result]) -> list[Result]:
    found: dict[str, Result] = {}
    for row in rows:
        if row.challenge:
            found.setdefault(row.challenge, row)
    return list(found.values())


def _method(rows: Sequence[Result]) -> str:
    """Return how most target domains were trained; without targets, how the source domain was."""
    targets = [row.method for row in rows if not row.source] or [row.method for row in rows]
    return max(targets, key=targets.count, default="")


def run_tables(
    runs: Mapping[str, Sequence[Result]], style: str = "text", *, all_published: bool = False
) -> str:
    """Return the table of each run's domains, then the paper's table 1.

    Runs without domains of the challenge have no table 1; in CSV, several are one table then. In
    CSV and LaTeX, table 1 stands alone.

    Args:
      runs: results by the name of the run.
      style: as in `decathlon_table`.
      all_published: as in `decathlon_table`.

    Raises:
      ValueError: as `decathlon_table`.
    """
    results = results_of(runs)
    table = decathlon_table(results, style, all_published=all_published) if results else ""
    if table and style in ("csv", "latex"):
        return table
    if style == "csv" and len(runs) > 1:
        return report_results.csv_of_runs(runs)
    tables = []
    for name, rows in runs.items():
        title = f"% {name}\n" if style == "latex" else f"{name}\n"
        tables.append((title if len(runs) > 1 else "") + report_results.table(rows, style))
    if table:
        tables.append(table)
        known = {name: it for name, it in results[0].accuracies.items() if it is not None}
        if len(results) == 1 and known:
            tables.append(points_table(known, style, notes=[f"{results[0].note}."]))
    return "\n\n".join(tables)


def points_table(
    accuracies: Mapping[str, float], style: str = "text", *, notes: Sequence[str] = ()
) -> str:
    """Return what each domain adds to the decathlon score, and S in the last line.

    The columns are top-1, error and the error at which points begin, in percent, the domain's
    points, and those that one more percent of accuracy would add.

    Args:
      accuracies: top-1 in percent by decathlon domain.
      style: "text", "markdown", "csv" or "latex".
      notes: lines under the table, e.g. what was evaluated; CSV has none.

    Raises:
      ValueError: an unknown style, or accuracies that `decathlon_points` refuses.
    """
    points = decathlon_points(accuracies)
    lines = [
        (
            name,
            f"{it.accuracy:.2f}",
            f"{100 - it.accuracy:.2f}",
            f"{largest_error(name):.2f}",
            f"{it.points:.1f}",
            f"{it.next_point:.1f}",
        )
        for name, it in points.items()
    ]
    score = sum(it.points for it in points.values())
    lines.append((f"S{_part(len(points))}", "", "", "", f"{score:.1f}", ""))
    return render(POINTS_HEADER, lines, style, notes=notes)
