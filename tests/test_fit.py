"""Training from Python: the same domain as from a config, whatever the images come as."""

import dataclasses
import importlib
import json
import os
import signal

import chex
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
from conftest import ROOT
from families import empty_family, member_of
from PIL import Image
from test_end_to_end import pretrained as pretrained
from test_end_to_end import small

import radapt_jax as rj
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.experiment.config import read, train_options
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.train import devices
from radapt_jax.train.options import LATER
from radapt_jax.train.signals import Stopped
from radapt_jax.utils import files, trees

FACTS = rj.DomainOptions(size=16, resize=18, flip=False)
SHORT = rj.TrainOptions(steps=4, evals=2, batch_size=32, log_every=1)
PLAIN = {"adapters": None, "norms": None}
METHODS = {
    "parallel": (rj.Parallel(), {}),
    "series": (rj.Series(), {}),
    "low_rank": (rj.LowRank(), {}),
    "linear": (rj.NoAdapter(), PLAIN),
    "norm": (rj.NoAdapter(), {"adapters": None}),
    "finetune": (rj.NoAdapter(), {"filters": 5e-4}),
}


@pytest.fixture(scope="module")
def images():
    """Eighty real digits, uint8 (80, 8, 8, 3), and their labels."""
    found = sklearn.datasets.load_digits()
    grey = (found.images[:80] * (255 / 16)).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), found.target[:80]


@pytest.fixture
def family(faces):
    """A family with a source domain of norms at random."""
    shared = dataclasses.replace(empty_family().shared, source="faces")
    return rj.Family(shared, [member_of(faces, "none", 1)])


def fitted(family, images, labels, name="digits", **options):
    """Train, and return the variables and what was measured."""
    history = rj.fit(family, name, images, labels, **{"domain": FACTS, "options": SHORT, **options})
    return family.variables(name), history


def test_images_of_all_kinds_give_the_same_domain(family, images, tmp_path):
    pixels, labels = images
    pictures = [Image.fromarray(image) for image in pixels]
    paths = [tmp_path / f"{place}.png" for place in range(len(pixels))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    expected, history = fitted(family, pixels, labels)
    for place, (same, numbers) in enumerate(
        [
            (jnp.asarray(pixels), jnp.asarray(labels)),
            (pictures, labels.tolist()),
            ((path for path in paths), labels.astype(np.uint8)),
            ([path.read_bytes() for path in paths], labels),
        ]
    ):
        found, told = fitted(family, same, numbers, name=f"digits{place}")
        chex.assert_trees_all_equal(found, expected)
        assert told == history


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method, family, images):
    """What is frozen stays, a domain with filters of its own has them, and it predicts."""
    adapter, decay = METHODS[method]
    before = trees.to_numpy(family.variables("faces"))
    options = dataclasses.replace(SHORT, decay=decay)
    found, history = fitted(family, *images, adapter=adapter, options=options)
    member = family["digits"]
    assert (member.method, member.data) == (method, None)
    assert member.has_own_weights == (method == "finetune")
    assert member.images["train"] + member.images["val"] == 80
    chex.assert_trees_all_equal(trees.to_numpy(family.variables("faces")), before)
    changed = {
        path
        for path, leaf in trees.flatten(found).items()
        if path.startswith("adapters/")
        and not np.array_equal(leaf, trees.flatten(before).get(path, 0))
    }
    norms = {path for path in changed if path.endswith("/scale")}
    assert bool(norms) == (method != "linear")
    assert [row.step for row in history.of("train")] == [1, 2, 3, 4]
    assert [row.step for row in history.of("val")] == [2, 4]
    assert member.results["val"] == pytest.approx(history.of("val")[-1].top1, abs=1e-3)
    batch = family.preprocess(images[0][:3], domain="digits")
    assert family.predict(batch, domain="digits").shape == (3, 10)


def test_a_joint_domain_stands_on_the_familys_basis(family, images, digits):
    family.add("dense", member_of(digits, "parallel", 2))
    small = rj.compress_family(family, "joint", rj.rank_rule("uniform"))
    fitted(small, *images, adapter=rj.Joint(init="he_normal"))
    assert small["digits"].is_joint
    assert small["digits"].spec.adapter.ranks == small.shared.basis.ranks
    with pytest.raises(ValueError, match="no shared variables of them"):
        fitted(family, *images, adapter=rj.Joint())


def test_the_same_domain_as_from_a_config(pretrained, cache_dir, tmp_path):
    """Images, options and seed are the same: so are variables, metrics, facts and what is held out.

    The results on test images as well.
    """
    config = small("parallel", cache_dir, domains="digits", init_from=str(pretrained), seed=3)
    rows = train_and_evaluate(config, tmp_path)
    expected, settings = rj.Family.load(tmp_path), read(config, 8)
    splits = {
        split: ([it.image for it in examples], [it.label for it in examples])
        for split in ("train", "test")
        for examples in [list(open_embedded("digits").splits[split]())]
    }
    family = rj.Family.load(pretrained)
    facts = dataclasses.asdict(expected["digits"].domain)
    chosen = {key: facts[key] for key in ("size", "resize", "crop", "flip", "adapter_decay")}
    history = rj.fit(
        family,
        "digits",
        *splits["train"],
        adapter=settings.network().adapter,
        domain=rj.DomainOptions(**chosen),
        options=settings.options,
    )
    chex.assert_trees_all_equal(family.variables("digits"), expected.variables("digits"))
    for part in ("domain", "spec", "method", "held_out", "results"):
        assert getattr(family["digits"], part) == getattr(expected["digits"], part), part
    metrics = files.read_rows(tmp_path / "metrics" / "digits.csv")
    assert [row.loss for row in history.rows] == [float(row["loss"]) for row in metrics]
    scores = rj.evaluate(family, "digits", *splits["test"])
    assert (scores.top1, scores.count) == (rows[-1].top1, rows[-1].count)


def test_nothing_is_written_without_a_workdir(family, images, tmp_path, monkeypatch, capfd):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    before = signal.getsignal(signal.SIGINT)
    fitted(family, *images, progress=False)
    rj.evaluate(family, "digits", *images)
    assert not list(tmp_path.rglob("*.*")) + list(home.iterdir()) + list(here.iterdir())
    assert signal.getsignal(signal.SIGINT) is before
    assert "images" not in capfd.readouterr().err  # no progress bar


def test_a_stopped_training_goes_on_in_its_workdir(family, images, tmp_path, monkeypatch):
    """Bit for bit as without one; what was measured before counts; other images are refused."""
    expected, history = fitted(family, *images)
    plain = devices.OneDomain.step

    def stopping(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(devices.OneDomain, "step", stopping)
        with pytest.raises(Stopped, match="saved at step 3 of 4"):
            fitted(family, *images, replace=True, workdir=tmp_path)
    chex.assert_trees_all_equal(family.variables("digits"), expected)  # the one from before
    other = dataclasses.replace(SHORT, learning_rate=0.2)
    with pytest.raises(ValueError, match=r"options.learning_rate: was 0.1, is 0.2"):
        fitted(family, *images, replace=True, workdir=tmp_path, options=other)
    with pytest.raises(ValueError, match=r"data.train: was '\w{64}'"):
        fitted(family, 255 - images[0], images[1], replace=True, workdir=tmp_path)
    begun = tmp_path / "training" / "digits.json"
    facts = json.loads(begun.read_text())
    for name in LATER:
        del facts["options"][name]  # as an earlier version wrote it
    begun.write_text(json.dumps(facts))
    other = dataclasses.replace(SHORT, optimizer="adam")
    with pytest.raises(ValueError, match=r"options.optimizer: was 'sgd', is 'adam'"):
        fitted(family, *images, replace=True, workdir=tmp_path, options=other)
    again, told = fitted(family, *images, replace=True, workdir=tmp_path)
    chex.assert_trees_all_equal(again, expected)
    assert told == history
    assert {path.name for path in tmp_path.iterdir()} >= {"training", "metrics", "tensorboard"}
    assert not (tmp_path / "domains").exists()


def test_names_validation_images_and_sizes(family, images):
    pixels, labels = images
    words = np.array(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    )
    expected, _ = fitted(family, pixels, labels, validation=(pixels[60:], labels[60:]))
    assert family["digits"].images == {"train": 80, "val": 20}
    facts = dataclasses.replace(FACTS, classes=words.tolist())
    named, _ = fitted(
        family,
        pixels,
        words[labels],
        name="named",
        domain=facts,
        validation=(list(pixels[60:]), words[labels[60:]].tolist()),
    )
    chex.assert_trees_all_equal(named, expected)
    assert family["named"].domain.classes == tuple(words)
    scores = rj.evaluate(family, "named", pixels[60:], words[labels[60:]])
    assert scores == rj.evaluate(family, "digits", pixels[60:], labels[60:])
    assert scores.top1 == pytest.approx(family["named"].results["val"], abs=1e-4)
    _, history = fitted(
        family, pixels, words[labels], name="few", domain=rj.DomainOptions(), validation=None
    )
    domain, source = family["few"].domain, family["faces"].domain
    assert domain.classes == tuple(sorted(words))
    assert (domain.size, domain.resize) == (source.size, source.resize)
    assert not history.of("val")
    assert "val" not in family["few"].results


def test_a_family_with_a_fitted_domain_is_saved_and_evaluated(family, images, tmp_path, cache_dir):
    expected, _ = fitted(family, *images)
    family.save(tmp_path)
    loaded = rj.Family.load(tmp_path)
    chex.assert_trees_all_equal(loaded.variables("digits"), expected)
    rows = {row.domain: row for row in evaluate_family(loaded, cache_dir=cache_dir)}
    assert rows["digits"].top1 is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1]}, "found 80 images and 2 labels; expected one label for each"),
        ({"images": [], "labels": []}, "found 0 images and 0 labels"),
        ({"images": np.zeros((80, 8, 8, 3), np.float32)}, "found an array of float32"),
        ({"images": ["missing.png"] * 80}, "missing.png"),
        ({"labels": np.full(80, -1)}, "labels from -1 to -1; expected 0 to"),
        ({"labels": np.linspace(0, 1, 80)}, "labels float64 .80,.; expected whole numbers"),
        ({"labels": np.zeros((80, 10), int)}, r"labels int64 \(80, 10\)"),
        ({"domain": rj.DomainOptions(classes=["a"])}, "expected 0 to 0, as there are 1 classes"),
        ({"labels": ["b"] * 80, "domain": rj.DomainOptions(classes=["a"])}, r"labels \['b'\]"),
        ({"validation": 1.0}, r"validation 1.0; expected a number in \[0, 1\)"),
        ({"validation": (np.zeros((1, 8, 8, 3), np.uint8), [10])}, "'val': found labels from 10"),
        ({"domain": rj.DomainOptions(size=20)}, "size 20; expected a whole number from 8, a mult"),
        ({"name": "faces"}, "is the one that the shared weights were pre-trained on"),
        ({"name": "Faces"}, "would share a folder"),
        ({"name": "a/b"}, "domain name 'a/b'"),
        ({"options": rj.TrainOptions(batch_size=12)}, "options.batch_size 12; .* the 8 devices"),
        ({"options": rj.TrainOptions(epochs=0)}, "options.steps 0 and epochs 0"),
        (
            {"options": rj.TrainOptions(export="best"), "validation": 0},
            "no validation images to tell",
        ),
    ],
)
def test_what_is_wrong_is_said_before_training(changes, message, family, images):
    wanted = {"images": images[0], "labels": images[1], "domain": FACTS, **changes}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fitted(family, **wanted)
    assert family.domains == ["faces"]


def test_a_domain_is_replaced_only_where_that_is_asked(family, images):
    fitted(family, *images)
    with pytest.raises(ValueError, match=r"has a domain 'digits' already.*replace=True"):
        fitted(family, *images)
    fitted(family, *images, replace=True)
    with pytest.raises(KeyError, match="no domain 'letters'"):
        rj.evaluate(family, "letters", *images)
    with pytest.raises(ValueError, match=r"labels from 0 to 10; expected 0 to 9"):
        rj.evaluate(family, "digits", images[0][:2], [0, 10])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"learning_rate": 0.0}, r"training: found learning_rate 0.0"),
        ({"batch_size": 1.5}, "training: found batch_size 1.5; expected a whole number from 1"),
        ({"decay": {"filter": None}}, r"decay of \['filter'\]; expected some of"),
        ({"decay": {"norms": -1.0}}, "weight decay: found norms -1.0"),
        ({"schedule": "linear"}, "found schedule 'linear'"),
        ({"drop_at": (80,)}, "found drop_at"),
    ],
)
def test_options_are_checked(option, message):
    with pytest.raises(ValueError, match=message):
        rj.TrainOptions(**option)


def test_the_defaults_are_those_of_the_configs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    config = importlib.import_module("configs.base").get_config()
    assert train_options(config) == rj.TrainOptions()
