"""Batches in parts, and several domains trained at once."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import network, spec_of
from test_end_to_end import pretrained as pretrained
from test_end_to_end import small

from radapt_jax import Family, initial_variables
from radapt_jax.data import batches
from radapt_jax.data.pixels import HostPixels
from radapt_jax.experiment.config import train_options
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.train import optim
from radapt_jax.train.compiled import make_train_step
from radapt_jax.train.devices import ManyDomains, OneDomain
from radapt_jax.train.job import Job
from radapt_jax.train.step import Lesson, TrainState, update
from radapt_jax.utils import files, trees

DECAY = {"filters": None, "adapters": 5e-4, "norms": 5e-4, "head": 5e-4}


def setup(spec, classes, decay=DECAY):
    start = initial_variables(spec, classes, seed=0)
    labels = optim.labels({key: start[key] for key in ("params", "adapters")}, decay, spec.kind)
    return start, labels, optim.make_optimizer(labels, decay, 0.1)


def test_a_batch_in_parts_has_the_mean_gradient_of_its_parts(digits):
    """With frozen statistics it would be that of the batch; norms see a part at a time."""
    spec = spec_of("parallel")
    with jax.enable_x64(True):
        start, labels, optimizer = setup(spec, 10)
        start = jax.tree.map(np.float64, start)
        model = spec.build(10, dtype=np.float64)
        images = digits.splits["train"].crops(np.arange(12), np.zeros((12, 2), np.int32), 16) / 255
        targets = digits.splits["train"].targets[:12]

        def after(rows, parts, momentum=None):
            state = TrainState.on_host(start, optimizer)
            new, measured = jax.jit(
                lambda state: update(
                    model,
                    optimizer,
                    labels,
                    state,
                    images[rows],
                    targets[rows],
                    key=jax.random.key(0),
                    parts=parts,
                )
            )(state)
            return trees.flatten(new.adapters), measured

        whole, measured = after(slice(0, 12), 3)
        singles = [after(slice(start, start + 4), 1) for start in (0, 4, 8)]
        for path, leaf in whole.items():
            expected = np.mean([single[path] for single, _ in singles], 0)
            np.testing.assert_allclose(leaf, expected, atol=1e-12, err_msg=path)
        for name in ("loss", "top1"):
            expected = np.mean([single[name] for _, single in singles])
            np.testing.assert_allclose(measured[name], expected, rtol=1e-12)


def test_a_teacher_sees_a_batch_part_by_part(digits):
    spec = spec_of("parallel")
    start, labels, optimizer = setup(spec, 10)
    images = digits.splits["train"].crops(np.arange(12), np.zeros((12, 2), np.int32), 16) / 255
    seen = []

    def answer(images):
        seen.append(images.shape[0])
        return jnp.tile(images.mean((1, 2, 3))[:, None], (1, 10))

    update(
        spec.build(10),
        optimizer,
        labels,
        TrainState.on_host(start, optimizer),
        images,
        digits.splits["train"].targets[:12],
        key=jax.random.key(0),
        parts=3,
        lesson=Lesson(images, answer, 2.0),
    )
    assert seen == [4, 4, 4]


@pytest.mark.skipif(
    jax.version.__version_info__ < (0, 12), reason="XLA's CPU computes the parts side by side"
)
def test_parts_take_less_memory():
    """What the compiled step needs for itself, by XLA's own account."""
    spec = spec_of("parallel", 0.25)
    start, labels, optimizer = setup(spec, 10)

    def temporary(parts):
        step = jax.jit(
            lambda state, images, targets: update(
                spec.build(10),
                optimizer,
                labels,
                state,
                images,
                targets,
                key=jax.random.key(0),
                parts=parts,
            )
        )
        images = jax.ShapeDtypeStruct((64, 32, 32, 3), np.float32)
        targets = jax.ShapeDtypeStruct((64,), np.int32)
        lowered = step.lower(TrainState.on_host(start, optimizer), images, targets)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(4) < 0.5 * temporary(1)


def test_parts_do_not_depend_on_the_number_of_devices(faces):
    """Synchronised norms: all devices together have the same images in a part."""
    spec = spec_of("parallel")
    with jax.enable_x64(True):
        start, labels, optimizer = setup(spec, 2)
        start = jax.tree.map(np.float64, start)
        ends = []
        for count in (1, 4):
            devices = jax.devices()[:count]
            step = make_train_step(
                spec,
                faces.domain,
                optimizer,
                labels,
                devices=devices,
                sync_norm=True,
                parts=2,
                dtype=np.float64,
            )
            state = TrainState.create(start, optimizer, devices)
            pixels = HostPixels(faces.splits["train"], 16)
            for index in range(2):
                batch = batches.train_batch(pixels, faces.domain, 32, 0, index, count, 2)
                state, _ = step(state, batch, None)
            ends.append(trees.to_numpy(state.variables))
    chex.assert_trees_all_close(*ends, rtol=0, atol=1e-9)


def jobs_of(domains, kind, cache_dir, **changes):
    config = small("parallel", cache_dir, **{"train.batch_size": 16, **changes})
    spec = spec_of(kind)
    return [
        Job(
            train_options(config),
            data,
            spec,
            initial_variables(spec, data.domain.num_classes, seed=0),
        )
        for data in domains
    ]


@pytest.mark.parametrize(("kind", "devices"), [("parallel", 3), ("series", 3), ("low_rank", 1)])
def test_domains_at_once_get_what_they_get_alone(kind, devices, digits, faces, cache_dir):
    """Other class counts, crops, mirroring, decay and statistics; with smoothing, mixing, dropout.

    On one device each, or all on one.
    """
    few = dataclasses.replace(
        digits, domain=dataclasses.replace(digits.domain, name="few", adapter_decay=10.0)
    )
    changes = {"train.label_smoothing": 0.1, "optim.learning_rate": 0.0005}
    if kind != "series":  # whose norms enlarge the last digit, in which mixing differs
        changes["train.mixup"] = 0.2
    jobs = jobs_of((digits, faces, few), kind, cache_dir, **changes)
    if kind == "parallel":
        spec = network("parallel", 0.125, init="he_normal", dropout=(0.2, 0.2))
        jobs = [dataclasses.replace(job, spec=spec) for job in jobs]
    together = ManyDomains(jobs, [job.start() for job in jobs], jax.devices()[:devices])
    losses = [together.step(index)["loss"] for index in range(3)]
    ends = [together.state(index) for index in range(3)]
    heads = [end.adapters["head"]["kernel"] for end in (ends[0], ends[2])]
    assert not np.allclose(*heads)  # the decay of adapters has acted on one of them
    for index, job in enumerate(jobs):
        alone = OneDomain([job], [job.start()], jax.devices()[:1])
        for step in range(3):
            found = alone.step(step)["loss"]
            np.testing.assert_allclose(np.ravel(losses[step])[index], found, rtol=1e-5)
        expected = jax.tree.map(np.asarray, alone.state(0))
        chex.assert_trees_all_close(ends[index], expected, rtol=1e-5, atol=1e-5)
        chex.assert_trees_all_equal(ends[index].params, expected.params)


def test_a_run_that_trains_its_domains_at_once(pretrained, cache_dir, tmp_path, monkeypatch):
    """Stopped between the saving of two domains, and resumed; as if it had not been.

    One that goes on alone has a head without padding, and is the same to rounding.
    """
    changes = {
        "domains": "digits,faces",
        "init_from": str(pretrained),
        "train.together": 2,
        "train.batch_size": 16,
        "train.log_every": 1,
    }
    config = small("parallel", cache_dir, **changes)
    rows = train_and_evaluate(config, tmp_path / "whole")
    assert [row.domain for row in rows] == ["pictures", "digits", "faces"]
    from radapt_jax.train.progress import Progress

    plain = Progress.evaluate

    def stopping(progress, done, state):
        if done == 4 and progress.job.name == "faces":
            raise KeyboardInterrupt
        plain(progress, done, state)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "evaluate", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path / "stopped")
    train_and_evaluate(config, tmp_path / "stopped")
    whole, stopped = (Family.load(tmp_path / name) for name in ("whole", "stopped"))
    chex.assert_trees_all_equal(whole.variables("digits"), stopped.variables("digits"))
    ends = [run.variables("faces") for run in (whole, stopped)]
    chex.assert_trees_all_close(*ends, rtol=1e-5, atol=1e-6)  # it has gone on alone
    for name in ("digits", "faces"):
        for run in ("whole", "stopped"):
            rows = files.read_rows(tmp_path / run / "metrics" / f"{name}.csv")
            steps = [int(row["step"]) for row in rows if row["split"] == "train"]
            assert steps == [1, 2, 3, 4], (name, run)


def test_one_that_diverges_does_not_stop_those_trained_with_it(
    pretrained, cache_dir, tmp_path, monkeypatch
):
    from radapt_jax.experiment.failures import DomainsFailed
    from radapt_jax.experiment.run import train_and_evaluate
    from radapt_jax.train import progress

    plain = progress.Progress.advance

    def advance(self, done, measured):
        if self.job.name == "faces":
            raise progress.Diverged("faces: the loss is nan", done)
        plain(self, done, measured)

    monkeypatch.setattr(progress.Progress, "advance", advance)
    changes = {"domains": "digits,faces", "init_from": str(pretrained), "train.together": 2}
    config = small("parallel", cache_dir, **changes)
    with pytest.raises(
        DomainsFailed, match="1 of 2 domains failed:\n  faces: faces: the loss is nan"
    ):
        train_and_evaluate(config, tmp_path)
    assert Family.load(tmp_path).domains == ["pictures", "digits"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optim.decay.filters": 5e-4}, "filters are frozen"),
        ({"data.on_device": True}, "not kept on the device"),
        ({"train.accumulate": 3}, r"times config.train.accumulate \(3\)"),
        ({"train.accumulate": 0}, "accumulate 0; expected a whole number from 1"),
    ],
)
def test_what_cannot_be_trained_at_once_is_said(changes, told, pretrained, cache_dir, tmp_path):
    changes = {"domains": "digits,faces", "init_from": str(pretrained), **changes}
    changes = {"train.together": 2, **changes}
    with pytest.raises(ValueError, match=told):
        train_and_evaluate(small("parallel", cache_dir, **changes), tmp_path)
