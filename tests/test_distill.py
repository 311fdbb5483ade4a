"""Distillation: filters are trained on several domains at once, each taught by its own network."""

import dataclasses
import json
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import empty_family, member_of, network, of_classes
from test_end_to_end import pretrained as pretrained
from test_end_to_end import small

from radapt_jax import Family, initial_variables
from radapt_jax.data import augment, batches
from radapt_jax.data.domain import Domain
from radapt_jax.data.load import DomainData
from radapt_jax.data.pixels import HostPixels
from radapt_jax.experiment.config import read
from radapt_jax.experiment.distilled import open_course
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.family import checkpoint
from radapt_jax.family.features import through_head
from radapt_jax.nn.losses import cka, cross_entropy, divergence
from radapt_jax.train import joint
from radapt_jax.train.compiled import make_joint_step
from radapt_jax.train.distill import Distillation, Taught, Teacher, channels, joint_update
from radapt_jax.train.job import Job
from radapt_jax.train.joint import Course
from radapt_jax.train.options import TrainOptions
from radapt_jax.train.signals import Stopped
from radapt_jax.utils import files, trees
from radapt_jax.utils.distributed import replicate

BATCH = 16
HOW = Distillation(features=0.7, logits=0.4, temperature=3.0)


def features(seed, rows=400, columns=8):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def plain_cka(x, y):
    """Linear CKA by its definition, with the centring matrix."""
    centre = np.eye(len(x)) - 1 / len(x)
    first, second = (centre @ it @ it.T @ centre for it in (x, y))
    sizes = np.trace(first @ first) * np.trace(second @ second)
    return np.trace(first @ second) / np.sqrt(sizes)


def test_cka_is_that_of_its_definition():
    x, y = features(1) + 5, features(2, columns=6)
    y[:, :3] += x[:, :3]
    found = float(cka(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)))
    assert found == pytest.approx(plain_cka(x, y), abs=1e-5)
    assert 0.1 < found < 0.9


def test_cka_of_what_is_alike_and_of_what_is_not():
    """A rotation, a shift and a scale change nothing; independent features are hardly alike."""
    x = features(1)
    rotation, _ = np.linalg.qr(features(3, rows=8))
    assert float(cka(x, 7 * x @ rotation + 2)) == pytest.approx(1, abs=1e-5)
    assert float(cka(x, features(2))) < 0.05
    assert float(cka(x, x * [100, 1, 1, 1, 1, 1, 1, 1])) < 0.9  # no invariance to all matrices


@pytest.mark.parametrize("rows", [1, 6])
def test_features_that_do_not_vary_have_no_cka_and_no_gradient(rows):
    still = jnp.ones((rows, 4))
    value, gradient = jax.value_and_grad(cka)(still, jnp.asarray(features(1, rows, 4)))
    assert float(value) == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_is_that_of_its_definition(temperature):
    ours, theirs = 3 * features(1, 5, 7), 3 * features(2, 5, 7)
    q, p = (np.exp(it / temperature) for it in (ours, theirs))
    q, p = q / q.sum(1, keepdims=True), p / p.sum(1, keepdims=True)
    expected = temperature**2 * (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(divergence(ours, theirs, temperature), expected, rtol=1e-4)
    np.testing.assert_allclose(divergence(ours, ours, temperature), 0, atol=1e-5)


def test_weights_fall_to_zero():
    whole, half = (Distillation(anneal=anneal).annealed(100) for anneal in (1.0, 0.5))
    assert [float(whole(step)) for step in (0, 99, 150)] == [1, 0, 0]
    assert [float(half(step)) for step in (0, 49, 99)] == [1, 0, 0]
    assert float(whole(33)) == pytest.approx(2 / 3)
    assert float(half(48)) > 0
    for options in ({"features": -1.0}, {"temperature": 0.0}, {"anneal": 0.0}, {"anneal": 1.5}):
        with pytest.raises(ValueError, match=r"distillation: found \w+ .*; expected a number in"):
            Distillation(**options)


def course_of(domains, precise, kind):
    """Two domains, teachers of another width, and steps of the gradient itself."""
    plain = dict.fromkeys(("filters", "adapters", "norms", "head"), 0.0)
    options = TrainOptions(
        steps=3, batch_size=BATCH, momentum=0.0, learning_rate=1.0, sync_norm=True, decay=plain
    )
    jobs, teachers = [], {}
    for index, data in enumerate(domains):
        data = dataclasses.replace(
            data, domain=dataclasses.replace(data.domain, adapter_decay=None)
        )
        spec, classes = network(kind, init="he_normal"), data.domain.num_classes
        start = jax.tree.map(precise, initial_variables(spec, classes, seed=1))
        jobs.append(Job(options, data, spec, start))
        other = network(width=0.25)  # its features have other channels
        taught = jax.tree.map(precise, initial_variables(other, classes, seed=7 + index))
        domain = dataclasses.replace(data.domain, mean=(0.3,) * 3, std=(0.2,) * 3)
        teachers[data.domain.name] = Teacher(domain, other, taught)
    return Course(jobs, teachers, HOW)


def stepped(course, count, monkeypatch):
    """Return the first state, the fed batches and the state after a step on `count` devices."""
    monkeypatch.setattr(TrainOptions, "compute_dtype", np.float64)
    devices = jax.devices()[:count]
    step = make_joint_step(
        course.jobs,
        course.teachers,
        course.optimizer(),
        course.labels,
        course.how,
        devices=devices,
    )
    start = course.start()
    start = start.replace(aligners=jax.tree.map(np.float64, start.aligners))
    fed = {
        job.name: batches.train_batch(
            HostPixels(job.data.splits["train"], 16), job.data.domain, BATCH, 0, 0, count
        )
        for job in course.jobs
    }
    teachers = replicate({name: it.variables for name, it in course.teachers.items()}, devices)
    before = trees.fingerprint(teachers)
    resident = dict.fromkeys(course.teachers)
    state, measured = step(replicate(start, devices), fed, teachers, resident)
    assert trees.fingerprint(teachers) == before  # bit for bit
    return start, fed, jax.tree.map(np.asarray, state), measured


def single(job, teacher, fed):
    """Return the loss of one domain as a function of its weights, written out."""
    batch = {name: jnp.asarray(array[0]) for name, array in fed.items()}
    images, seen = (
        augment.network_input(batch, domain.mean, domain.std).astype(np.float64)
        for domain in (job.data.domain, teacher.domain)
    )
    classes = job.data.domain.num_classes

    def applied(spec, variables, images, train):
        channels = variables["adapters"]["head"]["kernel"].shape[0]
        out = [
            spec.build(outputs, dtype=np.float64).apply(
                it, images, train=train, mutable=["batch_stats"] if train else False
            )
            for outputs, it in ((classes, variables), (channels, through_head(variables)))
        ]
        return [it[0] for it in out] if train else out

    def loss(weights):
        variables = {**weights, "batch_stats": job.variables["batch_stats"]}
        logits, ours = applied(job.spec, variables, images, True)
        taught, theirs = applied(teacher.spec, teacher.variables, seen, False)
        q, p = (jax.nn.softmax(it / HOW.temperature) for it in (logits, taught))
        apart = HOW.temperature**2 * (p * jnp.log(p / q)).sum(1).mean()
        centred = [it - it.mean(0) for it in (ours, theirs)]
        norm = jnp.linalg.norm
        cross = norm(centred[1].T @ centred[0]) ** 2
        alike = cross / (norm(centred[0].T @ centred[0]) * norm(centred[1].T @ centred[1]))
        hard = cross_entropy(logits, batch["label"]).mean()
        return hard + HOW.features * (1 - alike) + HOW.logits * apart

    return jax.jit(jax.value_and_grad(loss))


def test_filters_get_the_sum_of_the_gradients_of_all_domains(digits, faces, monkeypatch):
    """Norms and heads get their own domain's; CKA is over the images of all devices."""
    course = course_of((digits, faces), np.float64, "none")
    with jax.enable_x64(True):
        start, fed, after, measured = stepped(course, 1, monkeypatch)
        grads = jax.tree.map(np.subtract, start.weights, after.weights)
        singles = {}
        for index, job in enumerate(course.jobs):
            weights = {key: job.variables[key] for key in ("params", "adapters")}
            loss, singles[job.name] = single(job, course.teachers[job.name], fed[job.name])(weights)
            assert float(measured["loss"][index]) == pytest.approx(float(loss), rel=1e-6)
        both = [it["params"] for it in singles.values()]
        expected = jax.tree.map(np.add, *both)
        # Pixels are divided by 255 in float32, which a compiled program may round differently.
        chex.assert_trees_all_close(grads["params"], expected, rtol=0, atol=1e-5)
        for name, it in singles.items():
            chex.assert_trees_all_close(grads["adapters"][name], it["adapters"], rtol=0, atol=1e-5)
            assert np.abs(grads["aligners"][name]).max() > 0
        _, _, many, losses = stepped(course, 2, monkeypatch)
        chex.assert_trees_all_close(many.weights, after.weights, rtol=0, atol=1e-9)
        chex.assert_trees_all_close(many.batch_stats, after.batch_stats, rtol=0, atol=1e-9)
        np.testing.assert_allclose(losses["loss"], measured["loss"], rtol=1e-9)


def test_each_domain_has_its_own_decay_of_adapters(digits, faces):
    course = course_of((digits, faces), np.float32, "parallel")
    slow = dataclasses.replace(digits.domain, adapter_decay=0.25)
    jobs = [
        dataclasses.replace(course.jobs[0], data=dataclasses.replace(digits, domain=slow)),
        course.jobs[1],
    ]
    course = dataclasses.replace(course, jobs=jobs)
    state, optimizer = course.start(), course.optimizer()
    still = jax.tree.map(np.zeros_like, state.weights)
    updates, _ = optimizer.update(still, state.opt_state, state.weights)
    kernel = "stage1/block1/conv1/adapter/kernel"
    for job, decay in zip(jobs, (0.25, 0.0), strict=True):
        found = trees.flatten(updates["adapters"][job.name])[kernel]
        expected = -decay * trees.flatten(job.variables["adapters"])[kernel]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.skipif(
    jax.version.__version_info__ < (0, 12), reason="XLA's CPU computes domains side by side"
)
def test_a_step_takes_the_memory_of_one_domain():
    """What the compiled step needs for itself, by XLA's own account."""
    spec, weighted = network(), dict.fromkeys(("filters", "adapters", "norms", "head"), 0.0)
    start = initial_variables(spec, 10, seed=0)
    domain = Domain("it", tuple("abcdefghij"), (0.5,) * 3, (0.5,) * 3, size=16, resize=16)
    shapes = {"image": ((64, 16, 16, 3), np.uint8), "flip": ((64,), bool)}
    shapes["label"] = ((64,), np.int32)
    data = DomainData(domain, {"train": range(64)}, None)

    def temporary(names):
        jobs = [
            Job(
                TrainOptions(steps=1, decay=weighted),
                dataclasses.replace(data, domain=dataclasses.replace(domain, name=name)),
                spec,
                start,
            )
            for name in names
        ]
        course = Course(jobs, dict.fromkeys(names, Teacher(domain, spec, start)), HOW)
        models = spec.build(channels(start)), spec.build(channels(start))
        step = jax.jit(
            lambda state, fed, teachers: joint_update(
                dict.fromkeys(names, Taught(domain, *models, domain)),
                course.optimizer(),
                course.labels,
                HOW,
                state,
                fed,
                teachers,
                left=1.0,
                key=jax.random.key(0),
                resident=dict.fromkeys(names),
            )
        )
        batch = {name: jax.ShapeDtypeStruct(*it) for name, it in shapes.items()}
        fed, teachers = dict.fromkeys(names, batch), dict.fromkeys(names, start)
        lowered = step.lower(course.start(), fed, teachers)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary("ab") < 1.3 * temporary("a")


@pytest.fixture(scope="module")
def taught_by(pretrained, cache_dir, tmp_path_factory):
    """A run in which digits and the source domain have networks that are theirs alone."""
    workdir = tmp_path_factory.mktemp("finetune")
    changes = {"domains": "digits", "init_from": str(pretrained)}
    train_and_evaluate(small("finetune", cache_dir, **changes), workdir)
    return workdir


def distilled(pretrained, taught_by, cache_dir, **changes):
    chosen = {"domains": "pictures,digits", "init_from": str(pretrained), "train.log_every": 1}
    chosen |= {"distill.teachers": str(taught_by), "adapter.kind": "parallel", **changes}
    return small("distill", cache_dir, **chosen)


@pytest.fixture(scope="module")
def universal(pretrained, taught_by, cache_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("universal")
    train_and_evaluate(distilled(pretrained, taught_by, cache_dir), workdir)
    return workdir


def test_the_run_makes_a_family_that_others_start_from(
    pretrained, taught_by, universal, cache_dir, tmp_path
):
    family, before = Family.load(universal), Family.load(pretrained)
    assert family.domains == ["pictures", "digits"]
    assert (family.shared.source, family.shared.adapter) == ("pictures", "parallel")
    assert family.fingerprint != before.fingerprint
    for name in family:
        member = family[name]
        assert (member.method, member.has_own_weights) == ("distill_parallel", False)
        assert trees.flatten(member.variables["adapters"])["stem/adapter/kernel"].any()
        assert member.results["step"] == 4
        rows = files.read_rows(universal / "metrics" / f"{name}.csv")
        assert [row["step"] for row in rows if row["split"] == "train"] == ["1", "2", "3", "4"]
        assert member.results["val"] == pytest.approx(float(rows[-1]["top1"]), abs=1e-3)
    facts = json.loads((universal / "results.json").read_text())
    assert [(row["domain"], row["method"], row["count"]) for row in facts] == [
        ("pictures", "distill_parallel", 800),
        ("digits", "distill_parallel", 500),
    ]
    images = np.zeros((3, 16, 16, 3), np.uint8)
    assert family.predict(images, domains=["digits", "pictures", "digits"]).shape == (3, 16)
    held_out = [Family.load(it)["digits"].held_out for it in (universal, taught_by)]
    assert held_out[0] == held_out[1]

    config = small("parallel", cache_dir, domains="digits", init_from=str(universal))
    rows = train_and_evaluate(config, tmp_path)
    assert [row.domain for row in rows] == ["pictures", "digits"]
    assert Family.load(tmp_path).fingerprint == family.fingerprint
    with pytest.raises(ValueError, match=r"'pictures' is the one .* was pre-trained on"):
        train_and_evaluate(
            small("norm", cache_dir, domains="pictures", init_from=str(universal)), tmp_path / "x"
        )


def test_a_finished_run_is_kept_and_is_of_its_domains(pretrained, taught_by, universal, cache_dir):
    rows = json.loads((universal / "results.json").read_text())
    again = train_and_evaluate(distilled(pretrained, taught_by, cache_dir), universal)
    assert [row.top1 for row in again] == [row["top1"] for row in rows]
    other = distilled(pretrained, taught_by, cache_dir, domains="digits")
    with pytest.raises(ValueError, match=r"distilled from \['pictures', 'digits'\](.|\n)*parallel"):
        train_and_evaluate(other, universal)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    pretrained, taught_by, universal, cache_dir, tmp_path, monkeypatch
):
    """Stopped between evaluations: the joint state is saved, and the end is the same, exactly."""
    plain = joint.JointDomains.step

    def stopping(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, index)

    config = distilled(pretrained, taught_by, cache_dir)
    with monkeypatch.context() as patch:
        patch.setattr(joint.JointDomains, "step", stopping)
        with pytest.raises(Stopped, match="pictures, digits: saved at step 3 of 4"):
            train_and_evaluate(config, tmp_path)
    assert not (tmp_path / "shared").exists()
    for changes, told in (
        ({"domains": "pictures"}, r"distillation.domains: was \['pictures', 'digits'\], is"),
        ({"distill.teachers": str(universal)}, "distill.teachers: was"),
        ({"distill.features": 0.5}, "distill.features: was 1.0, is 0.5"),
    ):
        with pytest.raises(ValueError, match=told):
            train_and_evaluate(distilled(pretrained, taught_by, cache_dir, **changes), tmp_path)
    seen = []

    def counting(self, index):
        seen.append(index)
        return plain(self, index)

    monkeypatch.setattr(joint.JointDomains, "step", counting)
    train_and_evaluate(config, tmp_path)
    assert seen == [3]
    whole, stopped = (Family.load(it) for it in (universal, tmp_path))
    for name in whole:
        chex.assert_trees_all_equal(whole.variables(name), stopped.variables(name))
        same = f"metrics/{name}.csv"
        assert (universal / same).read_text() == (tmp_path / same).read_text()
    assert (universal / "results.json").read_text() == (tmp_path / "results.json").read_text()


def test_a_batch_that_a_loss_is_lost_on_is_skipped_by_all(
    pretrained, taught_by, cache_dir, tmp_path, monkeypatch
):
    plain, seen = joint.JointDomains.step, []

    def step(self, index):
        seen.append(index)
        measured = plain(self, index)
        return {**measured, "loss": measured["loss"] * np.nan} if index == 3 else measured

    monkeypatch.setattr(joint.JointDomains, "step", step)
    config = distilled(pretrained, taught_by, cache_dir, on_nan="rewind", export="best")
    train_and_evaluate(config, tmp_path)
    assert seen == [0, 1, 2, 3, 2, 4]
    family = Family.load(tmp_path)
    assert len({family[name].results["step"] for name in family}) == 1


def test_a_run_from_random_filters(taught_by, cache_dir):
    """All domains start from the same ones, which do not depend on their classes."""
    config = distilled("", taught_by, cache_dir, start="random", method="mine")
    pictures, digits = open_course(read(config, 1)).jobs
    chex.assert_trees_all_equal(pictures.variables["params"], digits.variables["params"])
    fresh = initial_variables(network(), 3, seed=0)
    chex.assert_trees_all_equal(pictures.variables["params"], fresh["params"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"distill.teachers": ""}, "distill.teachers is empty; name a run"),
        ({"domains": "digits,faces"}, r"no teacher for \['faces'\]; it has \['digits', 'pictures'"),
        ({"optim.decay.filters": None, "method": "mine"}, "distillation trains the shared filters"),
        ({"adapter.kind": "joint", "method": "mine"}, "adapters that domains do not share"),
        ({"distill.on": False, "method": "mine"}, "in a run that does not distill"),
        ({"distill.anneal": 0.0}, "distill.anneal 0.0; expected a number"),
        ({"backbone.width": 0.25}, "width 0.125"),
        ({"data.size": 24, "data.resize": 24}, "images of size 16; the domain has 24"),
    ],
)
def test_what_cannot_be_distilled_is_said(
    changes, told, pretrained, taught_by, cache_dir, tmp_path
):
    with pytest.raises(ValueError, match=told):
        train_and_evaluate(distilled(pretrained, taught_by, cache_dir, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused(digits, pretrained, cache_dir, tmp_path):
    family = empty_family()
    family.add("digits", member_of(of_classes(digits, 7), "none", 1, own_weights=True))
    family.save(tmp_path / "seven")
    config = distilled(pretrained, tmp_path / "seven", cache_dir, domains="digits")
    with pytest.raises(ValueError, match=r"has 7 classes, (.|\n)* have 10"):
        train_and_evaluate(config, tmp_path / "run")


def test_a_run_that_was_begun_before_there_was_distillation_goes_on(
    pretrained, cache_dir, tmp_path
):
    config = small("linear", cache_dir, domains="digits", init_from=str(pretrained))
    rows = train_and_evaluate(config, tmp_path)
    path = tmp_path / "config.json"
    facts = json.loads(path.read_text())
    del facts["distill"]
    path.write_text(json.dumps(facts))
    assert train_and_evaluate(config, tmp_path) == rows
    assert checkpoint.list_members(tmp_path) == ["digits", "pictures"]
