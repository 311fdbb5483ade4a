"""A domain that is trained by itself, and learns from another network of the same domain."""

import contextlib
import dataclasses
import json

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from families import empty_family, member_of, of_classes
from test_end_to_end import pretrained as pretrained
from test_end_to_end import small

import radapt_jax as rj
from radapt_jax import Family, TrainOptions
from radapt_jax.data import augment, batches
from radapt_jax.data.holdout import HeldOut
from radapt_jax.data.pixels import HostPixels
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.experiment.config import read, train_options
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.experiment.start import open_family, open_job
from radapt_jax.nn.losses import cross_entropy, divergence
from radapt_jax.train.teachers import teacher_of
from radapt_jax.utils import files


@pytest.fixture(scope="module")
def finetuned(pretrained, cache_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finetune")
    changes = {"domains": "digits", "init_from": str(pretrained), "train.steps": 8}
    train_and_evaluate(small("finetune", cache_dir, **changes), workdir)
    return workdir


def taught(pretrained, finetuned, cache_dir, **changes):
    chosen = {"domains": "digits", "init_from": str(pretrained), "train.log_every": 1}
    return small("taught", cache_dir, **{**chosen, "teachers": str(finetuned), **changes})


@pytest.mark.parametrize("own", [{}, {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.4, 0.5)}])
def test_what_is_minimised(own, pretrained, finetuned, cache_dir, tmp_path):
    """Half the cross-entropy, and the divergence from what the other network says.

    Each network sees the same crops, normalised as it was trained.
    """
    changes = {"temperature": 3.0, "seed": 4, "train.sync_norm": True}
    changes |= {f"options.digits.{name}": value for name, value in own.items()}
    config = taught(pretrained, finetuned, cache_dir, **changes)
    settings = read(config, 1)
    job = open_job(settings, "digits")(open_family(settings, tmp_path / "none"))
    domain = job.data.domain
    pixels = HostPixels(job.data.splits["train"], domain.size)
    batch = {it: rows[0] for it, rows in batches.train_batch(pixels, domain, 32, 4, 0, 1).items()}
    images = augment.network_input(batch, domain.mean, domain.std)
    start = {key: job.variables[key] for key in ("params", "adapters", "batch_stats")}
    logits, _ = job.spec.build(10).apply(start, images, train=True, mutable=["batch_stats"])
    other = Family.load(finetuned)
    theirs = other["digits"].spec.build(10)
    there = other["digits"].domain
    shown = augment.network_input(batch, there.mean, there.std)
    known = theirs.apply(other.variables("digits"), shown, train=False)
    expected = cross_entropy(logits, jnp.asarray(batch["label"])) / 2 + divergence(
        logits, known, 3.0
    )
    train_and_evaluate(config, tmp_path / "run")
    first = files.read_rows(tmp_path / "run" / "metrics" / "digits.csv")[0]
    assert float(first["loss"]) == pytest.approx(float(expected.mean()), rel=1e-4)
    plain = float(cross_entropy(logits, jnp.asarray(batch["label"])).mean())
    assert float(first["loss"]) != pytest.approx(plain, rel=1e-2)


def test_the_domain_is_one_of_parallel_adapters(pretrained, finetuned, cache_dir, tmp_path):
    """It has no trace of the other network; what was held out from that is held out again."""
    rows = train_and_evaluate(taught(pretrained, finetuned, cache_dir), tmp_path)
    assert [(row.domain, row.method) for row in rows][-1] == ("digits", "taught")
    family, before = Family.load(tmp_path), Family.load(pretrained)
    member = family["digits"]
    assert (member.spec.adapter.kind, member.has_own_weights) == ("parallel", False)
    assert family.shared.fingerprint(joint=True) == before.shared.fingerprint(joint=True)
    assert member.held_out == Family.load(finetuned)["digits"].held_out
    again = train_and_evaluate(taught(pretrained, finetuned, cache_dir), tmp_path)
    assert [row.top1 for row in again] == [row.top1 for row in rows]
    for changes, told in (
        ({"temperature": 4.0}, "temperature: was 2.0, is 4.0"),
        ({"teachers": str(tmp_path)}, "teachers: was"),
    ):
        with pytest.raises(ValueError, match=told):
            train_and_evaluate(taught(pretrained, finetuned, cache_dir, **changes), tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"teachers": ""}, "expected a run"),
        ({"method": "parallel"}, r"(?s)recipe's name.*teachers: found a run.*method=taught"),
        ({"domains": "faces"}, r"no teacher for \['faces'\]; it has .*--config\.teachers"),
        ({"data.size": 24, "data.resize": 24}, "images of size 16; the domain has 24"),
        ({"temperature": 0.0}, r"temperature 0\.0; expected a number in \(0, inf\)"),
        (
            {"teachers": "", "temperature": 3.0},
            r"temperature 3\.0, which does nothing without config\.teachers",
        ),
        ({"data.train_on": "train+val"}, "was trained with train_on 'train', the config asks for"),
        ({"train_fraction": 0.5}, "was trained with train_fraction 1.0, the config asks for 0.5"),
        ({"data.val_fraction": 0.0}, "was trained with val_fraction 0.1, the config asks for 0.0"),
        ({"train.together": 2}, r"beside config\.train\.together"),
        ({"adapter.kind": "joint"}, r"beside config\.adapter\.kind"),
    ],
)
def test_what_cannot_teach_is_said(changes, told, pretrained, finetuned, cache_dir, tmp_path):
    with pytest.raises(ValueError, match=told):
        train_and_evaluate(taught(pretrained, finetuned, cache_dir, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("of_teacher", "wanted", "held_out", "told"),
    [
        ({}, {}, HeldOut.of([1]), None),
        ({}, {"val_fraction": 0.0}, HeldOut.of([1]), "val_fraction 0.1"),
        ({}, {"val_fraction": 0.0}, None, "val_fraction 0.1"),
        ({}, {"val_fraction": 0.0}, HeldOut(), None),  # nothing validated it
        ({"subset": 1}, {}, HeldOut.of([1]), None),  # of all images
        ({"train_fraction": 0.5, "subset": 1}, {"train_fraction": 0.5}, None, "subset 1"),
    ],
)
def test_the_images_are_those_of_the_teacher(
    of_teacher, wanted, held_out, told, pretrained, cache_dir, tmp_path, digits
):
    settings = read(taught(pretrained, tmp_path, cache_dir), 1)
    settings = dataclasses.replace(settings, data={**settings.data, **wanted})
    spec = dataclasses.replace(digits.spec, **of_teacher)
    with contextlib.nullcontext() if told is None else pytest.raises(ValueError, match=told):
        settings.check_teachers_images(spec, held_out)


def test_a_network_of_other_classes_is_refused(digits, pretrained, cache_dir, tmp_path):
    family = empty_family()
    family.add("digits", member_of(of_classes(digits, 7), "none", 1, own_weights=True))
    family.save(tmp_path / "seven")
    config = taught(pretrained, tmp_path / "seven", cache_dir)
    with pytest.raises(ValueError, match=r"(?s)has 7 classes.*have 10"):
        train_and_evaluate(config, tmp_path / "run")


def test_a_run_that_was_begun_before_goes_on(pretrained, cache_dir, tmp_path):
    """Its config has no word of it; nothing but that is added."""
    config = small("linear", cache_dir, domains="digits", init_from=str(pretrained))
    rows = train_and_evaluate(config, tmp_path)
    path = tmp_path / "config.json"
    facts = json.loads(path.read_text())
    del facts["teachers"], facts["temperature"]
    path.write_text(json.dumps(facts))
    assert np.array_equal(
        [row.top1 for row in train_and_evaluate(config, tmp_path)], [row.top1 for row in rows]
    )


def learnt(config, family, teacher, like, /, **changes):
    """Train digits from Python, as a config says, with the facts of a domain."""
    examples = list(open_embedded("digits").splits["train"]())
    facts = dataclasses.asdict(like)
    known = {field.name for field in dataclasses.fields(rj.DomainOptions)}
    return rj.fit(
        family,
        "digits",
        [it.image for it in examples],
        [it.label for it in examples],
        **{
            "domain": rj.DomainOptions(**{key: it for key, it in facts.items() if key in known}),
            "options": train_options(config),
            "teacher": teacher,
            "progress": False,
            **changes,
        },
    )


def test_the_same_from_python(pretrained, finetuned, cache_dir, tmp_path):
    """Images, teacher, temperature and seed are the same: so are the variables."""
    config = taught(pretrained, finetuned, cache_dir, temperature=3.0)
    train_and_evaluate(config, tmp_path)
    family, teacher = Family.load(pretrained), Family.load(finetuned)
    like = teacher["digits"].domain
    learnt(config, family, teacher, like, temperature=3.0)
    expected = Family.load(tmp_path)
    chex.assert_trees_all_equal(family.variables("digits"), expected.variables("digits"))
    with pytest.raises(ValueError, match=r"other images \(.*with 136 images"):
        learnt(config, family, teacher, like, replace=True, validation=0.2)
    with pytest.raises(ValueError, match=r"temperature 0; expected"):
        learnt(config, family, teacher, like, replace=True, temperature=0)
    for options in ({"together": 2}, {"views": 4, "decay": {"adapters": None, "norms": None}}):
        with pytest.raises(ValueError, match=r"a teacher with together . and views .; expected"):
            learnt(config, family, teacher, like, replace=True, options=TrainOptions(**options))
    with pytest.raises(ValueError, match=r"without a domain 'digits'; it has \['pictures'\]"):
        learnt(config, family, Family.load(pretrained), like, replace=True)
    chex.assert_trees_all_equal(family.variables("digits"), expected.variables("digits"))


def test_a_training_goes_on_with_its_teacher(pretrained, finetuned, cache_dir, tmp_path):
    """In a workdir, too, where a training without one is another."""
    config = taught(pretrained, finetuned, cache_dir)
    family, teacher = Family.load(pretrained), Family.load(finetuned)
    like, where = teacher["digits"].domain, {"workdir": tmp_path, "replace": True}
    learnt(config, family, teacher, like, **where)
    expected = family.variables("digits")
    for changes, told in (
        ({"teacher": None}, r"teacher\.sha256: was '\w+', is None"),
        ({"temperature": 4.0}, r"teacher\.temperature: was 2\.0, is 4\.0"),
    ):
        with pytest.raises(ValueError, match=told):
            learnt(config, family, teacher, like, **where, **changes)
    learnt(config, family, teacher, like, **where)
    chex.assert_trees_all_equal(family.variables("digits"), expected)


@pytest.mark.parametrize("kind", ["parallel", "series", "conv_adapter"])
def test_domains_with_adapters_teach_as_they_are(kind, digits):
    """Folded where they can be."""
    family = empty_family()
    family.add("digits", member_of(digits, kind, 1))
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    teacher, spec = teacher_of(family, "digits"), family["digits"].spec
    plain = spec.build(10).apply(family.variables("digits"), images, train=False)
    shown = teacher.spec.build(10).apply(teacher.variables, images, train=False)
    np.testing.assert_allclose(shown, plain, rtol=1e-3, atol=1e-3)
    assert np.ptp(plain) > 0.1
    assert (teacher.spec.kind is not spec.kind) == (kind != "conv_adapter")


def test_what_tables_call_it(pretrained, finetuned, cache_dir):
    for kind, label in (("parallel", "taught"), ("series", "taught_series"), ("none", "taught")):
        config = taught(pretrained, finetuned, cache_dir, **{"adapter.kind": kind})
        assert read(config, 1).label == label
