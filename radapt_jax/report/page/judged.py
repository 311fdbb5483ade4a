"""What a run's domains say of their test images: which classes they confuse, and how surely."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from radapt_jax.data.views import eval_views
from radapt_jax.evaluation.evaluate import Answers, evaluate_family
from radapt_jax.report.page.look import Picture, drawn, short
from radapt_jax.report.page.runs import Run

MOST_CLASSES, FEW_CLASSES = 24, 12  # named in a confusion matrix; in larger letters
MISTAKES, CONFUSIONS = 12, 8  # shown of a domain
SIDE = 96  # of a shown image, in pixels


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image whose class was not found.

    Args:
      image: its centre, a PNG file as a data URI.
      right, said: names of classes.
      sure: probability of what was said, in percent.
      chance: probability of the right class, in percent.
    """

    image: str
    right: str
    said: str
    sure: float
    chance: float


@dataclasses.dataclass(frozen=True)
class Judged:
    """A domain's answers on a split.

    Args:
      domain: its name.
      split: what the images are of.
      count: of the images.
      matrix: the confusion matrix as a picture.
      confusions: the commonest: right class, what was said, how often.
      mistakes: the surest ones.
    """

    domain: str
    split: str
    count: int
    matrix: Picture
    confusions: list[tuple[str, str, int]]
    mistakes: list[Mistake]


def judge_run(run: Run, cache_dir: str | Path, data_dir: str | None = None) -> list[Judged]:
    """Evaluate every domain of a run; those without images here are left out, and told.

    Args:
      run: the run.
      cache_dir: where decoded images are kept.
      data_dir: where the images are now, if they have moved.
    """
    found: list[Judged] = []
    evaluate_family(
        run.family,
        cache_dir=cache_dir,
        data_dir=data_dir,
        see=lambda answers: found.append(judge(answers)),
    )
    return found


def judge(answers: Answers) -> Judged:
    """Tell which classes a domain confuses in what it predicts, and its surest mistakes."""
    domain, images = answers.domain, answers.images
    labels, said = images.targets, answers.found.predicted
    counts = np.zeros((domain.num_classes,) * 2, int)
    np.add.at(counts, (labels, said), 1)
    sure = np.where(said != labels, answers.found.sure, -1)
    worst = [it for it in np.argsort(-sure, kind="stable")[:MISTAKES] if said[it] != labels[it]]
    views = eval_views(images, domain, np.array(worst, int))
    shown = images.crops(views.positions, views.starts, domain.size)
    mistakes = [
        Mistake(
            _uri(image),
            domain.classes[labels[it]],
            domain.classes[said[it]],
            100 * float(sure[it]),
            100 * float(np.exp(-answers.found.losses[it])),
        )
        for it, image in zip(worst, shown, strict=True)
    ]
    matrix = confusion(domain.name, counts, domain.classes)
    confusions = commonest(counts, domain.classes)
    return Judged(domain.name, answers.split, len(images), matrix, confusions, mistakes)


def commonest(counts: np.ndarray, classes: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """Return which class was taken for which, and how often; the commonest first."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        (classes[right], classes[said], int(wrong[right, said]))
        for right, said in places
        if wrong[right, said]
    ]


def confusion(name: str, counts: np.ndarray, classes: tuple[str, ...]) -> Picture:
    """Draw a confusion matrix: for each class, the share of its images that was given to each.

    Of many classes, those with the most mistakes are shown.

    Args:
      name: of the domain.
      counts: (classes, classes), right by row and said by column.
      classes: their names.
    """
    wrong = counts.sum(1) - np.diag(counts)
    shown = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    part = shares[np.ix_(shown, shown)]
    labels = [short(classes[it]) for it in shown]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        image = axes.imshow(part, cmap="cividis", vmin=0, interpolation="nearest")
        axes.grid(False)
        size = 6 if len(shown) > FEW_CLASSES else 8
        axes.set_yticks(range(len(shown)), labels, fontsize=size)
        axes.set_xticks(range(len(shown)), labels, fontsize=size, rotation=90)
        axes.set(xlabel="said", ylabel="right")
        figure.colorbar(image, ax=axes, label="% of the class", shrink=0.7)

    title = "Confusions"
    if len(shown) < len(classes):
        title += f" of the {len(shown)} classes with the most mistakes, of {len(classes)}"
    words = ", ".join(f"{short(classes[it])} {shares[it, it]:.0f} % right" for it in shown)
    return drawn(f"confusions_{name}", title, words, draw, 4.4)


def _uri(image: np.ndarray) -> str:
    """Return an image as a data URI, at most `SIDE` pixels wide and high."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return data_uri(buffer.getvalue())


def data_uri(png: bytes) -> str:
    """Return a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
