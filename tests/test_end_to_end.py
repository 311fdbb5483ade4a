"""The main job on real images: pre-train, adapt, restore, evaluate; and stopping on the way."""

import importlib
import json
import os
import shutil
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from conftest import ROOT

from radapt_jax import Family
from radapt_jax.data import batches
from radapt_jax.evaluation import evaluate as evaluation
from radapt_jax.experiment import run as experiment_run
from radapt_jax.experiment.config import read
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.experiment.start import open_family
from radapt_jax.family import checkpoint
from radapt_jax.report import results
from radapt_jax.utils import files, trees

METHODS = (
    "scratch",
    "finetune",
    "linear",
    "norm",
    "series",
    "series_off_the_shelf",
    "parallel",
)


def small(recipe, cache_dir, **changes):
    """A quickstart config, cut to width 0.125, 16 pixels and a few steps."""
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module("configs.quickstart").get_config(recipe)
    sys.path.remove(str(ROOT))
    config.backbone.width = 0.125
    config.data.cache = str(cache_dir)
    config.data.size, config.data.resize = 16, 18
    config.train.batch_size, config.train.steps, config.train.evals = 32, 4, 2
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def pretrained(cache_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrain")
    rows = train_and_evaluate(small("scratch", cache_dir), workdir)
    assert [row.domain for row in rows] == ["pictures"]
    assert rows[0].ratio == 1.0
    return workdir


@pytest.mark.parametrize(
    ("method", "sizes", "told"),
    [
        ("parallel", (16, 18), None),
        ("parallel", (24, 27), "trained at 16 px, of images resized to 18; this run has 24 and 27"),
        ("series", (16, 18), "pre-trained without series adapters inside"),
        ("series_off_the_shelf", (16, 18), None),
    ],
)
def test_a_backbone_that_was_trained_otherwise_is_told(
    method, sizes, told, pretrained, cache_dir, tmp_path, caplog
):
    changes = {"init_from": str(pretrained), "domains": "digits"}
    changes |= {"data.size": sizes[0], "data.resize": sizes[1]}
    open_family(read(small(method, cache_dir, **changes), 1), tmp_path)
    assert (caplog.text == "") if told is None else (told in caplog.text)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_restores_and_counts(method, pretrained, cache_dir, tmp_path):
    changes = {"domains": "digits", "init_from": str(pretrained), "export": "best"}
    rows = train_and_evaluate(small(method, cache_dir, **changes), tmp_path)
    assert [row.domain for row in rows] == ["pictures", "digits"]
    assert (rows[1].method, rows[1].count, rows[1].split) == (method, 500, "test")
    family, source = Family.load(tmp_path), Family.load(pretrained)
    assert family.fingerprint == source.fingerprint
    chex.assert_trees_all_equal(family.variables("pictures"), source.variables("pictures"))
    own = method in ("scratch", "finetune")
    assert family["digits"].has_own_weights == own
    assert (rows[1].ratio >= 1.0) == own
    same = trees.fingerprint(family.variables("digits")["params"]) == source.fingerprint
    assert same != own
    kernels = [
        leaf
        for path, leaf in trees.flatten(family.variables("digits")).items()
        if path.endswith("adapter/kernel")
    ]
    assert len(kernels) == (25 if method[:6] in ("series", "parall") else 0)
    assert all(np.abs(kernel).max() > 0 for kernel in kernels)
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_new_domains_start_from_the_backbones_norms(pretrained, cache_dir, tmp_path, monkeypatch):
    """Norms with statistics are copied; adapters, their norms and the head are fresh."""
    starts = {}

    def instead(jobs, workdir, stopping):
        starts[jobs[0].name] = jobs[0].variables
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment_run, "train_domains", instead)
    config = small("series", cache_dir, domains="digits", init_from=str(pretrained))
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, tmp_path)
    start = trees.flatten(starts["digits"])
    source = trees.flatten(Family.load(pretrained).variables("pictures"))
    for path, leaf in start.items():
        if "/adapter/" in path:
            assert set(np.unique(leaf)) <= {0.0, 1.0}, path
        elif "/head/" in path:
            assert leaf.shape != source[path].shape, path
        else:
            np.testing.assert_array_equal(leaf, source[path], err_msg=path)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(pretrained, cache_dir, tmp_path, monkeypatch):
    """Stopped within the second of two domains: the first is kept, the second resumed, exactly."""
    changes = {"domains": "digits,faces", "init_from": str(pretrained), "train.steps": 6}
    changes |= {"train.evals": 3, "train.log_every": 1}
    config = small("parallel", cache_dir, **changes)
    train_and_evaluate(config, tmp_path / "whole")

    plain = batches.train_batch

    def stopping(pixels, domain, batch_size, seed, step, *sharing):
        if domain.name == "faces" and step == 5:
            raise KeyboardInterrupt
        return plain(pixels, domain, batch_size, seed, step, *sharing)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "train_batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path / "stopped")
    assert checkpoint.list_members(tmp_path / "stopped") == ["digits", "pictures"]
    seen = []

    def counting(pixels, domain, batch_size, seed, step, *sharing):
        seen.append((domain.name, step))
        return plain(pixels, domain, batch_size, seed, step, *sharing)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "train_batch", counting)
        train_and_evaluate(config, tmp_path / "stopped")
    assert [step for _, step in seen] == [4, 5]
    whole, stopped = (Family.load(tmp_path / name) for name in ("whole", "stopped"))
    for domain in ("digits", "faces"):
        chex.assert_trees_all_equal(whole.variables(domain), stopped.variables(domain))
    for name in ("whole", "stopped"):
        rows = files.read_rows(tmp_path / name / "metrics" / "faces.csv")
        steps = [int(row["step"]) for row in rows if row["split"] == "train"]
        assert steps == [1, 2, 3, 4, 5, 6]
    facts = [(tmp_path / name / "results.json").read_text() for name in ("whole", "stopped")]
    assert facts[0] == facts[1]


def test_a_damaged_training_state_costs_steps_and_no_more(pretrained, cache_dir, tmp_path, caplog):
    """Trained again from the state before the damaged one, the domain is what it was, exactly."""
    config = small("linear", cache_dir, domains="digits", init_from=str(pretrained))
    train_and_evaluate(config, tmp_path)
    before = Family.load(tmp_path).variables("digits")
    shutil.rmtree(tmp_path / "domains" / "digits")
    shutil.rmtree(tmp_path / "training" / "digits" / "4" / "state")
    with caplog.at_level("INFO", "radapt_jax"):
        train_and_evaluate(config, tmp_path)
    assert "4 is damaged" in caplog.text
    assert "digits: resumed at step 2 of 4" in caplog.text
    chex.assert_trees_all_equal(Family.load(tmp_path).variables("digits"), before)
    assert (tmp_path / "training" / "digits" / "damaged-4").is_dir()


@pytest.mark.parametrize("killed_in", ["save_member", "save_shared"])
def test_a_kill_while_the_first_domain_is_saved(killed_in, cache_dir, tmp_path, monkeypatch):
    """The source's weights are shared ones after the restart, too."""
    config = small("scratch", cache_dir, **{"train.steps": 1, "train.evals": 1})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path)
    rows = train_and_evaluate(config, tmp_path)
    assert rows[0].ratio == 1.0
    assert not Family.load(tmp_path)["pictures"].has_own_weights


def test_a_resumed_domain_must_be_the_one_it_was(pretrained, cache_dir, tmp_path):
    """Another mean under the same weights would be silently wrong."""
    config = small("linear", cache_dir, domains="digits", init_from=str(pretrained))
    train_and_evaluate(config, tmp_path)
    config.options.faces = {"mean": (0.1, 0.1, 0.1)}
    train_and_evaluate(config, tmp_path)  # of a domain that is not there yet, it may change
    config.options.digits.mean = (0.1, 0.1, 0.1)
    with pytest.raises(ValueError, match=r"config\.options\.digits\.mean: was None, is \[0\.1"):
        train_and_evaluate(config, tmp_path)
    shutil.rmtree(tmp_path / "domains" / "digits")
    with pytest.raises(ValueError, match=r"domain\.mean: was .*, is \[0\.1, 0\.1, 0\.1\]"):
        train_and_evaluate(config, tmp_path)


def test_a_table_without_the_sources_images(pretrained, cache_dir, tmp_path, monkeypatch, caplog):
    """Where pre-training images are elsewhere, the targets are trained and evaluated still."""
    plain = evaluation.load_one_split

    def elsewhere(spec, *rest):
        if spec.name == "pictures":
            raise FileNotFoundError("no pictures here")
        return plain(spec, *rest)

    monkeypatch.setattr(evaluation, "load_one_split", elsewhere)
    config = small("linear", cache_dir, domains="digits", init_from=str(pretrained))
    rows = train_and_evaluate(config, tmp_path)
    assert [row.top1 is None for row in rows] == [True, False]
    assert "not here (0)" in results.table(rows)
    assert "they add 0." in results.table(rows[1:])


def test_compress_and_join(pretrained, cache_dir, tmp_path):
    """One command compresses and fine-tunes; another adds a domain to the compressed family."""
    changes = {"init_from": str(pretrained), "domains": "digits,faces"}
    train_and_evaluate(small("parallel", cache_dir, **changes), tmp_path / "dense")
    changes = {"init_from": str(tmp_path / "dense"), "domains": ""}
    rows = train_and_evaluate(small("compress", cache_dir, **changes), tmp_path / "small")
    assert [(row.domain, row.method) for row in rows[1:]] == [
        ("digits", "joint"),
        ("faces", "joint"),
    ]
    family, before = (Family.load(tmp_path / "small" / part) for part in ("", "compressed"))
    assert family.fingerprint == before.fingerprint
    chex.assert_trees_all_equal(family.shared.params, before.shared.params)  # β is frozen
    mean = "batch_stats/norm/mean"
    dense = Family.load(tmp_path / "dense")
    stats = [trees.flatten(it.variables("digits"))[mean] for it in (dense, before)]
    assert not np.array_equal(*stats), "norms have seen the compressed network"
    gamma = "adapters/stage1/block1/conv1/adapter/gamma"
    moved = [trees.flatten(it.variables("digits"))[gamma] for it in (family, before)]
    assert not np.array_equal(*moved)
    assert 0 < rows[0].basis < 0.06
    assert (tmp_path / "small" / "spectra.png").stat().st_size > 10_000
    again = train_and_evaluate(small("compress", cache_dir, **changes), tmp_path / "small")
    assert again == rows

    more = small("compress", cache_dir, **{**changes, "domains": "digits,pictures"})
    with pytest.raises(ValueError, match="begun without domain 'pictures'"):
        train_and_evaluate(more, tmp_path / "small")

    changes = {"init_from": str(pretrained), "domains": "surfaces"}
    train_and_evaluate(small("parallel", cache_dir, **changes), tmp_path / "late")
    changes["init_from"] = str(tmp_path / "small")
    wrong = small("join", cache_dir, **{**changes, "init_from": str(pretrained)})
    with pytest.raises(ValueError, match="shares no β"):
        train_and_evaluate(wrong, tmp_path / "wrong")
    train_and_evaluate(small("join", cache_dir, **changes), tmp_path / "joined")
    changes["compress.dense"] = str(tmp_path / "late")
    for other, told in (
        ({"data.size": 24, "data.resize": 24}, "takes images of size 16; the domain has 24"),
        ({"train_fraction": 0.5}, "was trained with train_fraction 1.0"),
    ):
        with pytest.raises(ValueError, match=told):
            train_and_evaluate(small("join", cache_dir, **changes, **other), tmp_path / "other")
    rows = train_and_evaluate(small("join", cache_dir, **changes), tmp_path / "near")
    assert [row.domain for row in rows] == ["pictures", "digits", "faces", "surfaces"]
    joined = Family.load(tmp_path / "near")
    assert 0 < joined["surfaces"].results["projection_error"] < 1
    assert joined["surfaces"].results["dense_val"] >= 0
    chex.assert_trees_all_equal(joined.variables("digits"), family.variables("digits"))


def test_wrong_runs_are_refused_before_they_start(pretrained, cache_dir, tmp_path):
    def run(recipe="parallel", workdir=tmp_path / "new", **changes):
        defaults = {"domains": "digits", "init_from": str(pretrained)}
        train_and_evaluate(small(recipe, cache_dir, **{**defaults, **changes}), workdir)

    refused = [
        ({"init_from": ""}, "init_from is empty"),
        ({"domains": ""}, "domains is empty"),
        ({"domains": "digits,digits"}, "twice"),
        ({"domains": "pictures"}, "pre-trained on"),
        ({"domains": "nothing"}, "digits.*faces.*pictures"),
        ({"backbone.width": 0.25}, "width 0.125"),
        ({"backbone.dtype": "float16"}, "float16"),
        ({"train.batch_size": 12}, "multiple of the 8 devices"),
        ({"train.steps": -1}, "steps -1"),
        ({"train.evals": 0}, "evals 0"),
        ({"optim.momentum": 1.0}, "momentum 1.0"),
        ({"optim.schedule": "linear"}, "'linear'"),
        ({"adapter.stages": "early,last"}, "last"),
        ({"source_adapter": "series"}, "was with 'none'"),
        ({"export": "first"}, "'first'"),
        ({"start": "random", "method": "drawn"}, "keeps no random filters"),
        (
            {"compress.among": "joint 0.5"},
            "compress.among .*, which does nothing without config.comp",
        ),
        ({"compress.dense": "runs/dense"}, "compress.dense .*, which does nothing without"),
        ({"distill.temperature": 2.0}, r"found config\.distill \{'temperature': 2\.0\} in a run"),
        ({"export": "best", "data.val_fraction": 0.0}, "no validation images"),
    ]
    for changes, message in refused:
        with pytest.raises(ValueError, match=message):
            run(**changes)
    with pytest.raises(FileNotFoundError, match="shared weights"):
        run(init_from=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"config\.seed: was 0, is 1"):
        run("scratch", pretrained, init_from="", domains="pictures", seed=1)
    assert not (tmp_path / "new").exists()


def test_a_loss_that_is_not_finite_stops_the_run(pretrained, cache_dir, tmp_path):
    changes = {"domains": "digits", "init_from": str(pretrained), "optim.learning_rate": 1e30}
    with pytest.raises(
        FloatingPointError, match="digits: the loss or a gradient is NaN or infinite in step 2 of 4"
    ):
        train_and_evaluate(small("parallel", cache_dir, **changes), tmp_path)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A directory with what a clone has at its top level."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "eval.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


def command(clone, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, *arguments], cwd=clone, env=environment, capture_output=True, text=True
    )


def test_the_commands(clone, cache_dir):
    """train.py twice and eval.py, as the README has them, on fewer steps."""
    less = ("--config.train.steps=3", "--config.train.evals=1", "--config.backbone.width=0.125")
    less += (f"--config.data.cache={cache_dir}",)
    done = command(
        clone, "train.py", "--config", "configs/quickstart.py:scratch", "--workdir", "runs/a", *less
    )
    assert done.returncode == 0, done.stderr
    adapt = ("train.py", "--config", "configs/quickstart.py:parallel", "--workdir", "runs/b", *less)
    adapt += ("--config.init_from=runs/a", "--config.domains=digits,faces")
    done = command(clone, *adapt)
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout
    assert "times the backbone's parameters in all" in done.stdout
    assert "orbax" not in done.stderr.lower()  # our log lines only
    table = done.stdout.split("Written to")[0].strip()
    done = command(clone, "eval.py", "--workdir", "runs/b", "--cache", str(cache_dir))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == table  # restored from disk, the same figures
    done = command(
        clone, "eval.py", "--workdir", "runs/b", "--domains", "faces", "--split", "val",
        "--cache", str(cache_dir), "--format", "markdown",
    )  # fmt: skip
    assert done.stdout.count("| faces | parallel | 2 | train (103) | val (17) |") == 1
    rows = json.loads((clone / "runs" / "b" / "results.json").read_text())
    assert [row["domain"] for row in rows] == ["pictures", "digits", "faces"]
    assert list((clone / "runs" / "b" / "tensorboard" / "faces").glob("events*"))
    again = command(clone, *adapt)
    assert "finished before" in again.stderr
    assert again.stdout.split("Written to")[0].strip() == table


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("parallel", ["--config.optim.learning_rat=1"], "closest is --config.optim.learning_rate"),
        ("paralel", [], "closest is configs/parallel.py"),
        ("parallel", ["--config.domains=svhn"], "config.init_from is empty"),
        ("parallel", ["--config.train.batch_size=many"], "batch_size=many: expected a whole"),
        ("parallel", ["svhn"], "found arguments ['svhn']"),
        (
            "parallel",
            ["--config.domains=svhn", "--config.init_from=runs/none"],
            "found no shared weights",
        ),
        (
            "parallel",
            ["--config.domains=svhn", "--config.init_from=x", "--config.optim.decay.adapters=None"],
            "call the run what it is: --config.method=my_parallel",
        ),
    ],
)
def test_mistakes_are_answered_without_a_traceback(recipe, arguments, message, clone):
    config = f"configs/{recipe}.py"
    done = command(clone, "train.py", "--config", config, "--workdir", "runs/x", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (clone / "runs" / "x").exists()


def test_mistakes_of_eval_are_answered_without_a_traceback(clone):
    done = command(clone, "eval.py", "--workdir", "runs/x", "--data_dirr=x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Unknown command line flag 'data_dirr'. Did you mean")
    assert "Traceback" not in done.stderr


def test_eight_devices_are_here():
    """The other tests of this file run on them."""
    assert jax.local_device_count() == 8
