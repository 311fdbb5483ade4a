"""Puts the page together, from a template of Jinja that escapes whatever it is given."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from radapt_jax.report.page import layers, pictures, training
from radapt_jax.report.page.judged import Judged, data_uri, judge_run
from radapt_jax.report.page.look import THEMES, Picture, file_names
from radapt_jax.report.page.ranks import ranks
from radapt_jax.report.page.runs import Run, read_runs
from radapt_jax.utils import files
from radapt_jax.version import __version__

COSTS = ("parameters", "bytes")


def write_page(
    workdirs: Sequence[str | Path],
    out: str | Path,
    *,
    cache_dir: str | Path = "~/.cache/radapt_jax",
    data_dir: str | None = None,
    images: bool = True,
    judged: Sequence[Sequence[Judged]] | None = None,
) -> Path:
    """Write one HTML file about finished runs, and its pictures as PNG files beside it.

    The page needs nothing beside it: no script, no file, no other site. It follows the reader's
    light or dark mode and can be printed. The PNG files are in a folder of the page's name with
    "_pictures".

    Args:
      workdirs: of finished runs; the page compares several.
      out: the HTML file.
      cache_dir: where decoded images are kept.
      data_dir: where the images are now, if they have moved.
      images: also evaluate the runs, for confusion matrices and the surest mistakes.
      judged: of each run, what `judge` says of the answers of its domains, where these are known;
        nothing is evaluated then.

    Returns:
      The page's path.

    Raises:
      FileNotFoundError: a workdir is not there, or its run is not finished.
      ValueError: no workdirs; one that is named twice; or a damaged one.
      OSError: nothing can be written there; a page that is there stays unchanged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    path, runs = check_page(out), read_runs(workdirs)
    cache = Path(cache_dir).expanduser()
    if judged is None:
        judged = [judge_run(run, cache, data_dir) if images else [] for run in runs]
    answers = {run.name: it for run, it in zip(runs, judged, strict=True)}
    compared = [pictures.accuracy(runs), *_some(pictures.cost(runs, it) for it in COSTS)]
    alone = len(runs) == 1
    curves = [] if alone else training.compared(runs)
    own = {run.name: _own(run, alone) for run in runs}
    loader = PackageLoader("radapt_jax.report.page", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(uri=data_uri, number=_number)
    differ, same = _settings(runs)
    text = environment.get_template("page.html").render(
        runs=runs,
        compared=compared,
        curves=curves,
        own=own,
        judged=answers,
        themes=THEMES,
        differ=differ,
        same=same,
        version=__version__,
        today=datetime.date.today().isoformat(),
    )
    folder = path.with_name(f"{path.stem}_pictures")
    with files.saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, picture in _named([*compared, *curves], own, answers).items():
        files.write_atomically(folder / f"{name}.png", picture.png["light"])
    files.write_atomically(path, text)
    return path


def check_page(out: str | Path) -> Path:
    """Return where a page is written, before anything is computed for it.

    Raises:
      OSError: nothing can be written there.
    """
    path = files.located(out)
    if path.exists() and not path.is_file():
        raise OSError(f"found no place for a page at {path}; expected a file name.")
    files.check_writable(path.parent, "Name another file for the page.")
    return path


def _own(run: Run, alone: bool) -> list[Picture]:
    """Return the pictures of a run that are not of several; its training only if it is alone."""
    curve = training.of_run(run) if alone else None
    return _some([curve, ranks(run), layers.spectra(run), layers.moved(run)])


def _some(found: Any) -> list[Picture]:
    return [it for it in found if it is not None]


def _named(
    compared: Sequence[Picture],
    own: Mapping[str, Sequence[Picture]],
    judged: Mapping[str, Sequence[Judged]],
) -> dict[str, Picture]:
    """Return every picture by the name of its file, without its ending."""
    found = [(it.name, it) for it in compared]
    for run, drawn in own.items():
        found += [(f"{it.name}_{run}", it) for it in drawn]
    for run, rows in judged.items():
        found += [(f"{it.matrix.name}_{run}", it.matrix) for it in rows]
    names = file_names([name for name, _ in found])
    return dict(zip(names, (picture for _, picture in found), strict=True))


def _settings(runs: Sequence[Run]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return settings by name: those in which runs differ, one value each, and those they share."""
    names = sorted({name for run in runs for name in run.settings})
    values = {name: [run.settings.get(name, "") for run in runs] for name in names}
    differ = {name: it for name, it in values.items() if any(one != it[0] for one in it)}
    return differ, {name: it[0] for name, it in values.items() if name not in differ}


def _number(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
