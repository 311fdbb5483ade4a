"""What is mistyped on a command line is answered in one line; None and numbers can be set."""

import sys

import pytest
from absl import flags
from conftest import ROOT
from ml_collections import config_flags
from test_methods import RECIPES

from radapt_jax import command_line
from radapt_jax.train import optim

PARALLEL = ("--config", "configs/parallel.py")


def parsed(monkeypatch, *arguments):
    """Return the config of a command line that starts in a clone."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    return config_of(*arguments)


def config_of(*arguments):
    """Return the config of a command line."""
    argv, values = ["train.py", *arguments], flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    flags.DEFINE_string("workdir", None, "for the run", flag_values=values)
    assert command_line.parse(argv, values) == ["train.py"]
    return values.config


@pytest.mark.parametrize("path", RECIPES)
def test_every_decay_of_every_recipe_can_be_frozen_and_freed(path, monkeypatch):
    config = parsed(
        monkeypatch,
        f"--config={path}.py",
        *(f"--config.optim.decay.{label}=None" for label in optim.LABELS),
    )
    assert config.optim.decay.to_dict() == dict.fromkeys(optim.LABELS)
    config = parsed(
        monkeypatch,
        *("--config", f"{path}.py"),
        *(f"--config.optim.decay.{label}=1e-3" for label in optim.LABELS),
    )
    assert config.optim.decay.to_dict() == dict.fromkeys(optim.LABELS, 1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            (*PARALLEL, "--config.optim.learning_rat=0.1"),
            (".optim.learning_rat,", "configs/parallel.py", "is --config.optim.learning_rate:"),
        ),
        ((*PARALLEL, "--config.learning_rate=1"), ("is --config.optim.learning_rate:",)),
        ((*PARALLEL, "--config.lr", "1"), ("--config.lr,", "is --config.optim.learning_rate:")),
        (("--config=configs/parallel.py", "--config.batch_size=32"), (".train.batch_size:",)),
        ((*PARALLEL, "--noconfig.data.squish"), ("is --config.data.squash:",)),
        ((*PARALLEL, "--config.decay.adapter=1"), ("is --config.optim.decay.adapters:",)),
        ((*PARALLEL, "--config.qqq=1"), ("--config.qqq", "configs/base.py")),
        ((*PARALLEL, "--config.seed.low=1"), ("--config.seed.low", "configs/base.py")),
        (
            (*PARALLEL, "--config.options.svhn.flip=False"),
            ("options.svhn.flip", "--config.options=\"{'svhn': {...}}\""),
        ),
        (("--config", "configs/paralel.py"), ("'configs/paralel.py'", "is configs/parallel.py;")),
        (("--config", "configs/paralel.py", "--config.seed=1"), ("is configs/parallel.py;",)),
        (("--config=configs/decathlon/linar.py",), ("is configs/decathlon/linear.py;",)),
        (("--config=paralel",), ("--config configs/parallel.py.",)),
        (("--config=elsewhere/zzz.py",), ("'elsewhere/zzz.py'", "modulation, norm, parallel")),
        (("--config=",), ("found no recipe ''", "--config configs/NAME.py")),
        (("--config.seed=1",), ("--config.seed and no --config", "configs/NAME.py")),
        ((*PARALLEL, "--config.train.batch_size=many"), (".batch_size=many", "a whole number")),
        ((*PARALLEL, "--config.optim.momentum=high"), (".momentum=high", "expected a number")),
        ((*PARALLEL, "--workdirr=x"), ("'workdirr'", "workdir ?")),
        ((*PARALLEL, "svhn"), ("found arguments ['svhn']", "--name=value")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_closest(arguments, words, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        parsed(monkeypatch, *arguments)
    said = stopped.value.code  # text: printed, and the exit code is 1
    assert said.startswith("error: ")
    assert "\n" not in said
    for word in words:
        assert word in said


def test_a_recipe_that_misses_a_file_of_its_own(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    return open('weights.json')\n")
    with pytest.raises(SystemExit, match=r"error: .*weights\.json"):
        parsed(monkeypatch, "--config", str(tmp_path / "mine.py"))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A working directory from which Python finds no package `configs`."""

    def loaded():
        return [name for name in sys.modules if name.split(".")[0] == "configs"]

    for name in loaded():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [it for it in sys.path if it not in ("", ".", str(ROOT))])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in loaded():
        del sys.modules[name]


def test_a_bare_name_is_a_recipe_that_ships(elsewhere):
    assert config_of("--config", "quickstart:scratch", "--config.seed=3").domains == "pictures"
    config = config_of("--config=decathlon/parallel", "--config.seed=3")
    assert (config.method, config.data.source, config.seed) == ("parallel", "decathlon", 3)
    flagfile = elsewhere / "flags"
    flagfile.write_text("--config=linear\n")
    assert config_of(f"--flagfile={flagfile}").method == "linear"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config=paralel",), ("'paralel'", "The closest is parallel;", "--config parallel.")),
        (("--config=configs/parallel.py",), ("'configs/parallel.py'", "The closest is parallel;")),
        (("--config=decathlon/linar",), ("The closest is decathlon/linear;",)),
        (("--config=zzz",), ("The recipes are affine_mask, compress, ", "--config NAME.")),
        (("--config.seed=1",), ("--config NAME.",)),
        (("--config=parallel", "--config.lr=1"), ("and parallel has", "optim.learning_rate:")),
        (("--config=parallel", "--config.qqq=1"), (str(ROOT / "configs" / "base.py"),)),
    ],
)
def test_where_no_clone_is_recipes_are_called_by_their_names(arguments, words, elsewhere):
    with pytest.raises(SystemExit) as stopped:
        config_of(*arguments)
    for word in words:
        assert word in stopped.value.code


def test_a_recipe_of_the_users_starts_from_those_that_ship(elsewhere):
    text = "from configs import base\n\n\ndef get_config():\n    return base.recipe('norm')\n"
    (elsewhere / "mine.py").write_text(text)
    assert config_of("--config=mine.py").method == "norm"


def test_a_recipe_starts_from_the_folder_it_is_in(elsewhere):
    folder = elsewhere / "clone" / "configs"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    made = "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
    (folder / "base.py").write_text(made + "    return ConfigDict({'method': 'own'})\n")
    (folder / "mine.py").write_text("from configs.base import get_config\n")
    assert config_of("--config=clone/configs/mine.py").method == "own"
