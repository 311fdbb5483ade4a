"""Runs that train shared weights on several domains at once, by distillation."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from radapt_jax.data.load import DomainData, load_domain
from radapt_jax.evaluation.result import Result
from radapt_jax.experiment.settings import Lessons, Settings
from radapt_jax.experiment.start import open_shared, with_source
from radapt_jax.experiment.taught import open_teachers
from radapt_jax.family.family import Family
from radapt_jax.family.shared import Shared
from radapt_jax.family.start import start_variables
from radapt_jax.models.init import initial_variables
from radapt_jax.report import write
from radapt_jax.train.distill import Teacher
from radapt_jax.train.job import Job, Plan
from radapt_jax.train.joint import Course
from radapt_jax.train.loop import train_jointly
from radapt_jax.train.options import check_export
from radapt_jax.train.place import InWorkdir
from radapt_jax.train.signals import Stopping
from radapt_jax.train.teachers import check_fits
from radapt_jax.utils import distributed, trees

log = logging.getLogger(__name__)
TEACHERS = "distill.teachers"  # the entry of the config


def run_distilled(
    settings: Settings, workdir: Path, stopping: Stopping, begin: Callable[[], None]
) -> list[Result]:
    """Train the domains jointly, save them with their shared weights, and evaluate them.

    Raises:
      ValueError: a teacher does not fit its domain, or the workdir has the weights of other
        domains.
    """
    if (workdir / "shared").is_dir():
        family = _finished(settings, workdir)
    else:
        course = open_course(settings)
        distributed.by_main(begin)
        family = _trained(settings, course, workdir, stopping)
    rows = settings.evaluate(family)
    distributed.by_main(lambda: write.write(rows, workdir))
    return rows


def _finished(settings: Settings, workdir: Path) -> Family:
    """Return the family that this run has trained before."""
    family = Family.load(workdir)
    if set(family) != set(settings.domains):
        raise ValueError(
            f"{workdir} holds shared weights that were distilled from {family.domains}; the config "
            f"names {list(settings.domains)}. Use another --workdir; or train a domain on these "
            f"weights: configs/parallel.py with --config.init_from={workdir}."
        )
    log.info("%s: finished before, kept.", ", ".join(family))
    return family


def open_course(settings: Settings) -> Course:
    """Open teachers, images and first variables of all domains.

    An epoch is a pass over the domain with the most images; the others are seen as often in it.
    """
    lessons = settings.lessons
    assert lessons is not None
    with distributed.agreed():
        taught_by = open_teachers(lessons.teachers, settings.domains, TEACHERS)
        start = None if settings.start == "random" else with_source(settings, open_shared(settings))
        opened = {name: _images(settings, taught_by, name) for name in settings.domains}
    longest = max(Plan.of(settings.options, data).total for data in opened.values())
    options = dataclasses.replace(settings.options, steps=longest)
    spec, jobs = settings.network(), []
    for name, data in opened.items():
        classes = data.domain.num_classes
        if start is None:
            variables = initial_variables(spec, classes, options.seed)
        else:
            variables = start_variables(start, spec, name, classes, options.seed)
        jobs.append(Job(options, data, spec, variables, settings.label))
    teachers = {name: _teacher(lessons, taught_by, data) for name, data in opened.items()}
    return Course(jobs, teachers, lessons.how)


def _images(settings: Settings, taught_by: Family, name: str) -> DomainData:
    """Return a domain's images; those that its teacher was not trained on are held out again."""
    if (seen := taught_by[name].data) is not None:
        settings.check_teachers_images(seen, taught_by[name].held_out)
    data = load_domain(
        name,
        settings.data,
        settings.of_domain(name),
        settings.cache,
        taught_by[name].record,
        multiple_of=settings.backbone.multiple_of,
    )
    check_export(settings.options, name, "val" in data.splits)
    return data


def _teacher(lessons: Lessons, taught_by: Family, data: DomainData) -> Teacher:
    """Return the teacher of a domain.

    Raises:
      ValueError: it tells other classes apart, or was trained on images of another size.
    """
    name, member = data.domain.name, taught_by[data.domain.name]
    check_fits(member.domain, data.domain, lessons.teachers)
    return Teacher(member.domain, member.spec, trees.to_numpy(taught_by.variables(name)))


def _trained(settings: Settings, course: Course, workdir: Path, stopping: Stopping) -> Family:
    """Train the domains and save what they become; the first is the source of the new weights."""
    place = InWorkdir(workdir, also={"distillation": _facts(course)})
    trained = train_jointly(course, place, stopping)
    _, variables, _ = trained[0]
    shared = Shared(
        variables["params"],
        settings.backbone,
        source=settings.domains[0],
        adapter=settings.network().adapter.kind,
    )
    members = [job.member(variables, results, shares=True) for job, variables, results in trained]
    family = Family(shared, members)
    family.save(workdir)
    return family


def _facts(course: Course) -> Mapping[str, object]:
    """Return what joint training must keep when it goes on, beside what each domain must."""
    return {
        "domains": [job.name for job in course.jobs],
        "teachers": [trees.fingerprint(course.teachers[job.name].variables) for job in course.jobs],
    }
