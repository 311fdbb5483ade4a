"""Heads that are trained alone, on features that are computed once."""

import dataclasses
import os
import signal

import chex
import jax
import numpy as np
import pytest
from families import empty_family, member_of
from test_fit import FACTS, PLAIN, SHORT, fitted
from test_fit import images as images

import radapt_jax as rj
from radapt_jax.data.arrays import load_arrays
from radapt_jax.data.pixels import HostPixels
from radapt_jax.data.views import eval_views, kept_views, train_positions
from radapt_jax.evaluation.statistics import renewed
from radapt_jax.family.start import start_variables
from radapt_jax.train import head
from radapt_jax.train.distill import Teacher
from radapt_jax.train.job import Job
from radapt_jax.train.options import check_place
from radapt_jax.train.signals import Stopped
from radapt_jax.utils import trees

OPTIONS = dataclasses.replace(
    SHORT, decay=PLAIN, views=3, momentum=0.0, schedule="cosine", learning_rate=0.5
)
CROPPED = dataclasses.replace(FACTS, flip=True)
HOW = {"adapter": rj.NoAdapter(), "options": OPTIONS, "domain": CROPPED, "validation": 0}


@pytest.fixture
def family(faces):
    shared = dataclasses.replace(empty_family().shared, source="faces")
    return rj.Family(shared, [member_of(faces, "none", 1)])


def job_of(family, images, options=OPTIONS, facts=CROPPED):
    """What `rj.fit` trains."""
    spec = rj.ModelSpec(family.shared.backbone, rj.NoAdapter())
    like = facts.like(family["faces"].domain)
    data = load_arrays("digits", images, None, like, multiple_of=spec.backbone.multiple_of)
    variables = start_variables(family, spec, "digits", 10, options.seed)
    return Job(options, data, spec, variables, "linear")


def test_steps_are_those_of_logistic_regression(family, images):
    """By hand, in NumPy, on the features that the finished domain gives of the same windows."""
    trained, _ = fitted(family, *images, **HOW)
    job = job_of(family, images)
    split, domain = job.data.splits["train"], job.data.domain
    expected = trees.flatten(job.variables["adapters"]["head"])
    weights = {name: np.asarray(it, np.float64) for name, it in expected.items()}
    for step in range(SHORT.steps):
        positions = train_positions(len(split), SHORT.batch_size, 0, step)
        views = np.random.default_rng([0, step, 3]).integers(3, size=SHORT.batch_size)
        cut = [kept_views(split, domain, positions, 0, view) for view in range(3)]
        pixels = HostPixels(split, domain.size)
        seen = [pixels.cut(it) for it in cut]
        windows = np.stack([seen[view]["image"][row] for row, view in enumerate(views)])
        flips = np.array([seen[view]["flip"][row] for row, view in enumerate(views)])
        windows = np.where(flips[:, None, None, None], windows[:, :, ::-1], windows)
        x = family.features(windows, domain="digits").astype(np.float64)
        logits = x @ weights["kernel"] + weights["bias"]
        share = np.exp(logits - logits.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        wrong = (share - np.eye(10)[split.targets[positions]]) / len(x)
        rate = float(job.plan.schedule(step))
        decayed = {"kernel": 5e-4 * weights["kernel"], "bias": 5e-4 * weights["bias"]}
        weights["kernel"] = weights["kernel"] - rate * (x.T @ wrong + decayed["kernel"])
        weights["bias"] = weights["bias"] - rate * (wrong.sum(0) + decayed["bias"])
    for name, found in trees.flatten(trained["adapters"]["head"]).items():
        assert np.abs(found - expected[name]).max() > 1e-3
        np.testing.assert_allclose(found, weights[name], atol=1e-5)


def test_statistics_are_settled_and_the_rest_stands_still(family, images):
    trained, _ = fitted(family, *images, **HOW)
    job = job_of(family, images)
    before, after = (
        trees.flatten({key: it[key] for key in ("params", "adapters")})
        for it in (job.variables, trained)
    )
    moved = {path for path in after if not np.array_equal(before[path], after[path])}
    assert moved == {"adapters/head/kernel", "adapters/head/bias"}
    split = job.data.splits["train"]
    chex.assert_trees_all_equal(
        trained["batch_stats"], renewed(family, "digits", split).variables["batch_stats"]
    )
    assert not np.allclose(
        *(it["batch_stats"]["norm"]["mean"] for it in (job.variables, trained)), atol=1e-3
    )


def test_a_stopped_training_goes_on(family, images, tmp_path, monkeypatch):
    expected, history = fitted(family, *images, **HOW)
    plain = head.HeadAlone.step

    def stopping(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, index)

    again = {**HOW, "replace": True, "workdir": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(head.HeadAlone, "step", stopping)
        with pytest.raises(Stopped, match="saved at step 3 of 4"):
            fitted(family, *images, **again)
    other = {**again, "options": dataclasses.replace(OPTIONS, views=2)}
    with pytest.raises(ValueError, match=r"options.views: was 3, is 2"):
        fitted(family, *images, **other)
    found, told = fitted(family, *images, **again)
    chex.assert_trees_all_equal(found, expected)
    assert told == history


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"on_device": True}])
def test_devices_parts_and_places_change_nothing(options, family, images):
    changed = dataclasses.replace(OPTIONS, **options)
    job = job_of(family, images, changed)
    ends = []
    for count in (1, 4):
        trained = head.HeadAlone([job], [job.start()], jax.devices()[:count])
        losses = [float(trained.step(index)["loss"]) for index in range(3)]
        ends.append((losses, trees.to_numpy(trained.state(0).variables)))
    chex.assert_trees_all_close(*ends, atol=1e-5)


def test_images_that_are_seen_whole_have_one_view(family, images):
    for facts, count in ((FACTS, 3), (dataclasses.replace(FACTS, crop="centre"), 1)):
        job = job_of(family, images, facts=facts)
        kept = list(head.kept_features(job, job.variables, jax.devices()[:1]))
        assert len(kept) == count
        assert [it.shape for it in kept] == [(80, kept[0].shape[1])] * count
        assert all(np.abs(kept[0] - it).max() > 1e-3 for it in kept[1:])


def test_what_does_not_go_with_it_is_refused(family, images):
    for decay in ({}, {"adapters": None}, {**PLAIN, "filters": 5e-4}):
        with pytest.raises(ValueError, match=r"training: found views 3 where .* trained; expected"):
            rj.TrainOptions(views=3, decay=decay)
    with pytest.raises(ValueError, match="found views -1"):
        rj.TrainOptions(views=-1, decay=PLAIN)
    with pytest.raises(ValueError, match=r"together 2 and options.views 3; expected 1 or 0"):
        check_place(rj.TrainOptions(views=3, decay=PLAIN, together=2), 2)
    job = job_of(family, images)
    taught = dataclasses.replace(job, teacher=Teacher(job.data.domain, job.spec, job.variables))
    with pytest.raises(ValueError, match="digits: found views 3 and a teacher; expected 0"):
        head.HeadAlone([taught], [job.start()], jax.devices()[:1])


def test_kept_views_are_those_of_the_image(family, images):
    """The first is the centre; the others do not depend on which images are asked for at once."""
    data = job_of(family, images).data
    split, domain = data.splits["train"], data.domain
    every, few = np.arange(len(split)), np.array([7, 3])
    chex.assert_trees_all_equal(
        kept_views(split, domain, few, 0, 0), eval_views(split, domain, few)
    )
    whole = [kept_views(split, domain, every, 0, number) for number in (1, 2)]
    for number, view in enumerate(whole, start=1):
        part = kept_views(split, domain, few, 0, number)
        for found, of_all in zip(part, view, strict=True):
            np.testing.assert_array_equal(found, of_all[few])
        assert set(np.unique(view.starts)) == {0, 1, 2}  # windows of 16 in 18 pixels
        assert 20 < view.flips.sum() < 60
    assert (whole[0].starts != whole[1].starts).any()
    other = kept_views(split, domain, every, 1, 1)
    assert (whole[0].starts != other.starts).any()


def test_adapters_that_are_trained_are_refused(family, images):
    """Their decay may be given by variable, beside one of all adapters that freezes."""
    job = job_of(family, images)
    adapter = rj.Parallel(decay={"kernel": 5e-4})
    spec = rj.ModelSpec(family.shared.backbone, adapter)
    variables = start_variables(family, spec, "digits", 10, 0)
    job = dataclasses.replace(job, spec=spec, variables=variables)
    with pytest.raises(ValueError, match=r"views 3 where \['adapters/kernel'\] are trained"):
        head.HeadAlone([job], [job.start()], jax.devices())
