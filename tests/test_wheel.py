"""Whoever installs the wheel can train: it holds commands, recipes and types, and nothing else."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from conftest import ROOT

UNTRACKED = (".*", "runs", "build", "dist", "*.egg-info", "__pycache__")  # as .gitignore has them
LESS = (
    "--config.train.steps=2",
    "--config.train.evals=1",
    "--config.train.batch_size=16",
    "--config.backbone.width=0.0625",
    "--config.data.size=16",
    "--config.data.resize=16",
)


def run(*command, cwd):
    """Run a command that knows nothing of the clone; return what it prints."""
    left_out = ("XLA_FLAGS", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of this clone, so that no earlier build's files are in it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "clone", ignore=shutil.ignore_patterns(*UNTRACKED))
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "clone", cwd=folder)
    (found,) = folder.glob("radapt_jax-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel; what it depends on is that of these tests."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "--python", python, "install", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Read after the environment's own packages, and without the links that are in there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import radapt_jax; print(radapt_jax.__file__)", cwd=folder)
    assert where.strip() == str(packages / "radapt_jax" / "__init__.py")
    return folder


def files(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_the_recipes(wheel):
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {f"radapt_jax/{name}" for name in files(ROOT / "radapt_jax")}
    recipes = {f"radapt_jax/recipes/{name}" for name in files(ROOT / "configs")}
    assert {"radapt_jax/py.typed", "radapt_jax/recipes/decathlon/parallel.py"} <= found
    assert found == package | recipes


def test_commands_train_and_evaluate_outside_a_clone(installed, tmp_path):
    radapt = installed / "bin" / "radapt"
    assert "usage: radapt ls" in run(radapt, "ls", "--help", cwd=tmp_path)
    train = ("train", "--config", "quickstart:scratch", "--workdir", "runs/a", *LESS)
    cache = tmp_path / "cache"
    printed = run(radapt, *train, f"--config.data.cache={cache}", cwd=tmp_path)
    table, _, written = printed.partition("Written to ")
    assert "pictures  scratch" in table
    assert written.startswith("runs/a: results.md")
    module = (installed / "bin" / "python", "-m", "radapt_jax")
    found = run(*module, "eval", "--workdir", "runs/a", "--cache", cache, cwd=tmp_path)
    assert found.strip() == table.strip()
    assert run(radapt, "ls", "runs/a", cwd=tmp_path).startswith("pictures ")
