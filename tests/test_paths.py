"""Where a run reads and writes: ~ is the home, and one folder may be spelt in several ways."""

import dataclasses
import json
import os

import pytest
from families import empty_family, member_of
from test_methods import recipe

from radapt_jax import Family
from radapt_jax.data.spec import DataSpec
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.experiment.resume import check_same, remember
from radapt_jax.experiment.run import train_and_evaluate


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home and another folder, in which commands are started."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_family_is_saved_and_loaded_under_the_home(home, digits):
    family = empty_family(1 / 32)
    family.add("digits", member_of(digits, "none", 1, width=1 / 32))
    for _ in range(2):  # the second time it looks at what is there
        family.save("~/family")
    assert (home / "family" / "shared").is_dir()
    assert list(Family.load("~/family")) == list(Family.load(home / "family")) == ["digits"]
    assert os.listdir(".") == []


def test_a_run_is_kept_under_the_home_and_starts_from_there(home, digits, cache_dir):
    empty_family(1 / 32).save(home / "backbone")
    small = {"backbone.width": 1 / 32, "data.size": 8, "data.resize": 8, "train.steps": 1}
    small |= {"train.evals": 1, "train.batch_size": 8, "data.cache": str(cache_dir)}
    small |= {"domains": "digits", "init_from": "~/backbone"}
    config = recipe("configs/quickstart", "linear", **small)
    rows = train_and_evaluate(config, "~/run")
    assert (home / "run" / "results.md").is_file()
    assert os.listdir(".") == []
    for spelling in (str(home / "backbone"), os.path.relpath(home / "backbone")):
        config.init_from = spelling
        assert train_and_evaluate(config, home / "run") == rows


def test_one_folder_in_several_spellings(home, monkeypatch):
    """Begun with a relative path, a run goes on with other spellings, from other folders too."""
    config = recipe("configs/join", **{"init_from": "../home/a", "compress.dense": "b"})
    workdir = home / "run"
    remember(config, workdir)

    def resume(init_from, dense):
        config.init_from, config.compress.dense = init_from, dense
        check_same(config, workdir)

    here = os.getcwd()
    resume("~/a", "./b")
    resume(str(home / "a"), f"{here}/b")
    resume("../here/../home/a/", "../here/b")
    monkeypatch.chdir(home)
    resume("a", "../here/b")
    resume("../home/a", "b")  # as it was: the whole tree may have moved
    for other in ("../home/b", "b", ""):
        with pytest.raises(ValueError, match=r"config\.init_from: was '../home/a', is "):
            resume(other, "b")


def test_a_run_of_before_is_resumed(home):
    """Its config.json does not tell where it was begun, or with which optimiser."""
    config = recipe("configs/parallel", init_from="a")
    workdir = home / "run"
    workdir.mkdir()
    entries = json.loads(config.to_json_best_effort())
    for entry in ("name", "adapter_optimizer", "adapter_rate"):
        del entries["optim"][entry]
    (workdir / "config.json").write_text(json.dumps(entries))
    config.init_from = str(home.parent / "here" / "a")
    check_same(config, workdir)
    config.optim.name = "adam"
    with pytest.raises(ValueError, match=r"config\.optim\.name: was 'sgd', is 'adam'"):
        check_same(config, workdir)


@pytest.mark.parametrize("source", ["folder", "tfds", "decathlon"])
def test_missing_images_name_the_flags_of_both_commands(source, digits, cache_dir, tmp_path):
    family = empty_family(1 / 32)
    spec = DataSpec("svhn", source=source, dir=str(tmp_path), size=8, resize=8)
    member = member_of(digits, "none", 1, width=1 / 32)
    family.add("svhn", dataclasses.replace(member, data=spec))
    with pytest.raises(FileNotFoundError, match=r"--config\.data\.dir=DIR.*--data_dir=DIR"):
        evaluate_family(family, domains=["svhn"], cache_dir=cache_dir)
