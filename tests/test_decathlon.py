"""The Visual Decathlon from its archives to table 1, on small archives of the same layout."""

import csv
import dataclasses
import importlib
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from archives import make_archives
from conftest import ROOT
from PIL import Image

from radapt_jax import DECATHLON, Family, decathlon_score
from radapt_jax.__main__ import main
from radapt_jax.data.decathlon.prepare import prepare_decathlon
from radapt_jax.data.load import load_domain
from radapt_jax.decathlon import submission
from radapt_jax.experiment.failures import DomainsFailed
from radapt_jax.experiment.run import train_and_evaluate

DEFAULTS = {"source": "decathlon", "size": 64, "resize": 72, "squash": False}
PRETRAINED = ("pretrain", "pretrain_series", "pretrain_wide")
ON_SVHN = ("finetune", "scratch", "norm", "series")
PLACES = ("parallel_early", "parallel_mid", "parallel_late", "parallel_half")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with archives and labels, and the datasets that were prepared from them."""
    root = tmp_path_factory.mktemp("decathlon")
    facts = make_archives(root / "archives")
    prepare_decathlon(root / "archives", root / "data", expected=facts)
    return root


def recipe(name, prepared, **changes):
    """A recipe of configs/decathlon, cut to an eighth of its width, 16 pixels and one epoch."""
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module(f"configs.decathlon.{name}").get_config()
    sys.path.remove(str(ROOT))
    config.backbone.width *= 0.125
    config.data.dir, config.data.cache = str(prepared / "data"), str(prepared / "cache")
    config.data.size, config.data.resize = 16, 20
    config.data.max_unreadable = 0.1
    config.train.batch_size, config.train.epochs, config.train.evals = 8, 1.0, 1
    if config.init_from:
        config.init_from = config.init_from.replace("runs", str(prepared / "runs"))
    config.update_from_flattened_dict(changes)
    return config


def train(name, prepared, **changes):
    return train_and_evaluate(
        recipe(name, prepared, **changes), prepared / "runs" / "decathlon" / name
    )


def test_preprocessing_is_that_of_the_original(prepared):
    """Shorter side 72 and whole; random 64 px windows, or all 72 px of signs and letters."""
    whole = {}
    for name in ("aircraft", "daimlerpedcls", "svhn"):
        data = load_domain(name, {**DEFAULTS, "dir": prepared / "data"}, {}, prepared / "cache")
        facts, domain = DECATHLON[name], data.domain
        assert (domain.mean, domain.std, domain.flip) == (facts.mean, facts.std, facts.augment)
        assert domain.size == (64 if facts.augment else 72)
        assert domain.num_classes == facts.num_classes
        assert (data.splits["train"].extents.min(1) == 72).all()
        whole[name] = data.splits["train"].extents
        assert "test" not in data.splits  # the archives have no labels of it
    assert whole["daimlerpedcls"].max() >= 144
    assert (whole["aircraft"].max(1) > 72).any()
    joined = {**DEFAULTS, "dir": prepared / "data", "train_on": "train+val"}
    data = load_domain("aircraft", joined, {}, prepared / "cache")
    assert (list(data.splits), len(data.splits["train"])) == (["train"], 18)


@pytest.fixture(scope="module")
def runs(prepared):
    """All recipes trained for one epoch: the quickest on nine domains, the others on one or two."""
    rows = {}
    for name in PRETRAINED:
        train(name, prepared)
    rows["linear"] = train("linear", prepared)
    rows["parallel"] = train("parallel", prepared, domains="dtd,svhn")
    for name in (*ON_SVHN, *PLACES, "parallel_wide"):
        rows[name] = train(name, prepared, domains="svhn")
    rows["svd"] = train("svd", prepared)
    return rows


def test_every_recipe_trains(runs):
    recipes = {path.stem for path in (ROOT / "configs" / "decathlon").glob("*.py")}
    assert {*runs, *PRETRAINED} == recipes - {"__init__"}
    assert [row.challenge for row in runs["linear"]] == [
        "imagenet12",
        *sorted(name for name in DECATHLON if name != "imagenet12"),
    ]
    for name, rows in runs.items():
        last = next(row for row in rows if row.domain == "svhn")
        assert last.method == ("joint" if name == "svd" else name)
        assert (last.split, last.count, last.trained_on) == ("val", 6, "train")
        dtd = next((row for row in rows if row.domain == "dtd"), None)
        assert dtd is None or dtd.images == 11  # one of twelve cannot be read
    ratios = {
        name: row.ratio for name, rows in runs.items() for row in rows if row.domain == "svhn"
    }
    assert ratios["linear"] == ratios["norm"] < ratios["parallel_early"] < ratios["parallel_mid"]
    assert ratios["parallel_half"] < ratios["parallel"] < ratios["series"] < ratios["finetune"]


def evaluate(prepared, *flags):
    """Run eval.py in a process of its own; return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, ROOT / "eval.py", "--cache", prepared / "cache", *flags],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_submission_score_and_table(runs, prepared, tmp_path, capsys):
    """The score is that of the labels, in a folder or zipped, and of the written file alone."""
    labels = shutil.make_archive(tmp_path / "labels", "zip", prepared / "archives" / "labels")
    workdir = prepared / "runs" / "decathlon" / "linear"
    flags = ["--workdir", workdir, "--split", "test", "--format", "csv"]
    flags += ["--submission", tmp_path / "results.json", "--labels", labels]
    printed = evaluate(prepared, *flags)
    answers = json.loads((tmp_path / "results.json").read_text())
    numbers = [answer["image_id"] for answer in answers]
    assert numbers == sorted(numbers)
    assert all(answer.keys() == {"image_id", "category_id"} for answer in answers)
    truth = {}
    for name in DECATHLON:
        content = (prepared / "archives" / "labels" / f"{name}_test.json").read_text()
        notes = json.loads(content)["annotations"]
        truth[name] = {it["image_id"]: it["category_id"] for it in notes}
    assert sorted(number for part in truth.values() for number in part) == numbers
    given = {answer["image_id"]: answer["category_id"] for answer in answers}
    top1 = {
        name: 100 * np.mean([given[number] == category for number, category in part.items()])
        for name, part in truth.items()
    }
    lines = list(csv.DictReader(printed.splitlines()[1:]))
    ours, published = lines
    assert float(ours["S"]) == pytest.approx(sum(map(_points, top1.items())))
    assert float(ours["mean"]) == pytest.approx(np.mean(list(top1.values())))
    assert ours["note"] == "trained on train, evaluated on test"
    assert published["method"].startswith("published: Feature extractor")
    assert float(published["S"]) == pytest.approx(544, abs=2.5)
    command = ["decathlon", "score", str(tmp_path / "results.json"), "--format", "csv"]
    main([*command, "--labels", str(prepared / "archives" / "labels")])
    scored = {line["domain"]: line for line in csv.DictReader(capsys.readouterr().out.splitlines())}
    assert float(scored["S"]["points"]) == pytest.approx(float(ours["S"]), abs=0.06)
    assert all(float(scored[name]["accuracy %"]) == round(top1[name], 2) for name in DECATHLON)


def _points(item):
    name, accuracy = item
    return decathlon_score({name: accuracy}) if accuracy > 1 else 0.0


def test_answers_are_the_predictions_of_the_family(runs, prepared):
    family = Family.load(prepared / "runs" / "decathlon" / "parallel")
    found = submission.answers(family, ["svhn"], cache_dir=prepared / "cache")["svhn"]
    spec = family["svhn"].data
    images, numbers = {}, []
    for example in spec.open().splits["test"]():
        images[example.image_id] = family.preprocess(
            Image.open(io.BytesIO(example.image)), domain="svhn"
        )[0]
        numbers.append(example.image_id)
    batch = np.stack([images[number] for number in sorted(numbers)])
    labels = family.predict(batch, domain="svhn").argmax(1)
    base = DECATHLON["svhn"].category_base
    expected = [
        (number, base + int(label)) for number, label in zip(sorted(numbers), labels, strict=True)
    ]
    assert found == expected


def test_what_cannot_be_submitted_or_scored_is_said(runs, prepared, tmp_path):
    family = Family.load(prepared / "runs" / "decathlon" / "norm")
    with pytest.raises(ValueError, match=r"no domain aircraft, .*only imagenet12, svhn"):
        submission.answers(family, cache_dir=prepared / "cache")
    found = submission.answers(family, ["svhn"], cache_dir=prepared / "cache")
    with pytest.raises(FileNotFoundError, match=r"svhn_test\.json"):
        submission.score_answers(family, found, tmp_path)
    file = prepared / "archives" / "labels" / "svhn_test.json"
    labels = json.loads(file.read_text())
    labels["annotations"].pop()
    (tmp_path / "svhn_test.json").write_text(json.dumps(labels))
    with pytest.raises(ValueError, match="5 images, the answers of 6"):
        submission.score_answers(family, found, tmp_path)
    (tmp_path / "svhn_test.json").write_text("[]")
    with pytest.raises(ValueError, match="COCO"):
        submission.score_answers(family, found, tmp_path)
    numbers = dataclasses.replace(family["svhn"].domain, name="numbers")
    family.add("numbers", dataclasses.replace(family["svhn"], domain=numbers))
    assert submission.challenge_domains(family)["svhn"] == "numbers"
    assert submission.answers(family, ["svhn"], cache_dir=prepared / "cache") == found
    whole = prepared / "archives" / "labels"
    for named, row in (["svhn"], "svhn"), (["numbers"], "numbers"):
        answered = submission.answers(family, iter(named), cache_dir=prepared / "cache")
        (scored,) = submission.score_answers(family, answered, whole, domains=iter(named))
        assert scored.domain == row
    (scored,) = submission.score_answers(family, found, whole)
    assert scored.domain == "numbers"  # the first one
    with pytest.raises(ValueError, match="found several domains of svhn"):
        submission.answers(family, ["svhn", "numbers"], cache_dir=prepared / "cache")
    twice = {"svhn": found["svhn"], "dtd": found["svhn"]}
    with pytest.raises(ValueError, match="one number"):
        submission.write_submission(twice, tmp_path / "results.json")


def test_table_of_several_runs(runs, prepared):
    folder = prepared / "runs" / "decathlon"
    workdirs = ",".join(str(folder / name) for name in ("norm", "parallel_half"))
    printed = evaluate(prepared, "--workdir", workdirs, "--domains", "svhn")
    assert printed.count("ours: ") == 4  # two lines, two notes
    assert "published: Parallel residual adapters (half)" in printed
    assert "(1 of 10)" in printed
    assert "trained on train, evaluated on val" in printed


def test_a_failed_domain_does_not_stop_the_others(runs, prepared, tmp_path):
    """One launch: svhn's images are away; cifar100 and dtd train, and the next start adds svhn."""
    away = prepared / "data" / "decathlon" / "svhn"
    config = recipe("linear", prepared, domains="svhn,dtd,cifar100")
    shutil.move(away, tmp_path / "svhn")
    try:
        with pytest.raises(DomainsFailed, match=r"1 of 3 domains failed:\n  svhn: .*found neither"):
            train_and_evaluate(config, tmp_path / "run")
    finally:
        shutil.move(tmp_path / "svhn", away)
    assert [row["domain"] for row in json.loads((tmp_path / "run/results.json").read_text())] == [
        "imagenet12",
        "cifar100",
        "dtd",
    ]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/domains").glob("*/card*")}
    rows = train_and_evaluate(config, tmp_path / "run")
    assert [row.domain for row in rows] == ["imagenet12", "cifar100", "dtd", "svhn"]
    assert all(path.stat().st_mtime_ns == before[path] for path in before)


def test_all_domains_failing_leaves_the_workdir_free(prepared, tmp_path):
    """A mistake that hits every domain is raised before anything is written."""
    config = recipe("linear", prepared, domains="svhn,dtd")
    config.data.dir = str(tmp_path)
    with pytest.raises(DomainsFailed, match="2 of 2"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_after_train_and_val_nothing_is_left_to_evaluate_on(runs, prepared, tmp_path, caplog):
    changes = {"domains": "svhn", "data.train_on": "train+val", "train_fraction": 0.5}
    rows = train_and_evaluate(recipe("linear", prepared, **changes), tmp_path / "latest")
    svhn = rows[-1]
    assert (svhn.split, svhn.count, svhn.top1) == ("nothing", 0, None)
    assert svhn.trained_on == "50 % of train+val"
    assert "nothing is left to evaluate it on" in caplog.text
    best = recipe("linear", prepared, **changes, export="best")
    with pytest.raises(ValueError, match="no validation images"):
        train_and_evaluate(best, tmp_path / "best")


def test_a_compressed_domain_keeps_its_images(runs, prepared, tmp_path):
    with pytest.raises(DomainsFailed, match=r"trained with train_fraction 1\.0.*asks for 0\.5"):
        train_and_evaluate(recipe("svd", prepared, train_fraction=0.5), tmp_path)


def test_facts_go_with_the_images_not_with_the_name(prepared):
    fields = {**DEFAULTS, "dir": prepared / "data"}
    data = load_domain("numbers", fields, {"dataset": "svhn"}, prepared / "cache")
    assert (data.domain.mean, data.domain.size) == (DECATHLON["svhn"].mean, 72)
    assert not data.domain.flip
    asked = load_domain("svhn", {**fields, "adapter_decay": 0.0}, {}, prepared / "cache")
    assert (asked.domain.adapter_decay, asked.domain.size) == (None, 72)  # the config's decay


def test_fewer_training_images(prepared):
    """A fraction, or so many of a class; more images include fewer, and val stays as it is."""
    used = {}
    for fraction, most in ((1.0, 0), (0.5, 0), (0.25, 0), (1.0, 1)):
        fields = {**DEFAULTS, "dir": prepared / "data", "max_unreadable": 0.1}
        fields |= {"train_fraction": fraction, "images_per_class": most}
        data = load_domain("daimlerpedcls", fields, {}, prepared / "cache")
        used[fraction, most] = set(data.splits["train"].index.tolist())
        labels = data.splits["train"].targets
        assert set(labels) == {0, 1}
        assert len(data.splits["val"]) == 6
        if most:
            assert np.bincount(labels).tolist() == [1, 1]
    assert used[0.25, 0] < used[0.5, 0] < used[1.0, 0]
