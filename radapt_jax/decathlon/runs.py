"""Finished runs on disk: evaluated on a split, or on the challenge's test images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from radapt_jax.decathlon import submission as challenge
from radapt_jax.evaluation.evaluate import Answers, evaluate_family
from radapt_jax.evaluation.result import Result
from radapt_jax.family.family import Family
from radapt_jax.utils.files import check_file_place, located


def evaluate(
    workdirs: Sequence[str],
    domains: Sequence[str] = (),
    *,
    split: str = "test",
    see: Callable[[str, Answers], None] | None = None,
    **evaluation: Any,
) -> dict[str, list[Result]]:
    """Return the results of each run, by its workdir.

    Args:
      domains: those to load and evaluate; default: all of a run.
      split: "train", "val" or "test".
      see: gets the workdir and the answers of each domain that is evaluated.
      evaluation: `cache_dir`, and `data_dir`, `batch_size`, `dtype`, `crops` as of
        `evaluate_family`.

    Raises:
      Whatever `Family.load` and `evaluate_family` raise.
    """
    wanted = domains or None
    return {
        workdir: evaluate_family(
            Family.load(workdir, wanted),
            domains=wanted,
            split=split,
            see=None if see is None else functools.partial(see, workdir),
            **evaluation,
        )
        for workdir in workdirs
    }


def answer(
    workdirs: Sequence[str],
    domains: Sequence[str] = (),
    *,
    labels: str | None = None,
    submission: str | None = None,
    crops: int = 1,
    **evaluation: Any,
) -> dict[str, list[Result]]:
    """Answer the challenge's test images: write a run's answers, score those of each run.

    Return the results of each run, by its workdir; without labels there are none.

    Args:
      domains: the challenge's names; default: all ten.
      labels: folder or zip file of `<domain>_test.json`, to score with.
      submission: the file to write the answers to; what is written there is printed.
      crops: views of an image that are averaged.
      evaluation: `cache_dir`, and `data_dir`, `batch_size`, `dtype` as of `evaluate_family`.

    Raises:
      ValueError: a submission of several runs; or what `submission.answers`,
        `write_submission` and `score_answers` raise.
    """
    if submission and len(workdirs) > 1:
        raise ValueError(f"a submission is of one run; found {len(workdirs)} in --workdir.")
    if submission:
        check_file_place(located(submission))
    results = {}
    for workdir in workdirs:
        family = Family.load(workdir)
        answers = challenge.answers(family, domains, crops=crops, **evaluation)
        if submission:
            challenge.write_submission(answers, located(submission))
            print(f"{submission}: {sum(map(len, answers.values())):,} images.")
        if labels:
            results[workdir] = challenge.score_answers(family, answers, labels, crops, domains)
    return results


def check_evaluated(results: Mapping[str, Sequence[Result]]) -> None:
    """Raise ValueError if no domain of a run could be evaluated."""
    for workdir, rows in results.items():
        if all(row.top1 is None for row in rows):
            why = "none of its domains has images here" if rows else "it holds no domains"
            raise ValueError(f"nothing could be evaluated of {workdir}: {why}.")
