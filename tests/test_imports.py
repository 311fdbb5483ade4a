"""Packages import only from those before them, files not in circles, and no TensorFlow is there."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT

# A package imports from those before it in this list, and from version.py.
PACKAGES = (
    *("utils", "nn", "data", "adapters", "models", "family", "evaluation", "compress"),
    *("convert", "train", "report", "experiment", "decathlon", "serve", "commands"),
)
PACKAGE = ROOT / "radapt_jax"
LONGEST = 300  # lines of a file


def imports(source):
    """Yield the modules of this library that a source imports, as paths in it: "utils.trees"."""
    for node in ast.walk(ast.parse(source)):
        found = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "this library imports by full names"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        for name in found:
            if name.split(".")[0] == "radapt_jax":
                yield name.removeprefix("radapt_jax").lstrip(".")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import radapt_jax.train.loop", "train.loop"),
        ("import radapt_jax.data.cache as cache", "data.cache"),
        ("if x:\n    import radapt_jax", ""),
        ("from radapt_jax import train", "train"),
        ("from radapt_jax.data import cache", "data.cache"),
    ],
)
def test_every_way_to_import_is_seen(source, found):
    assert list(imports(f"import radapt_jaxes, jax.loop\n{source}")) == [found]


def files():
    found = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


def test_packages_import_only_from_those_before_them():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(PACKAGES)
    for name, path in files().items():
        package = name.split(".")[0]
        if package not in PACKAGES:
            continue
        allowed = {*PACKAGES[: PACKAGES.index(package) + 1], "version"}
        for module in imports(path.read_text()):
            assert module.split(".")[0] in allowed, f"{name} imports {module}"


def test_files_do_not_import_in_circles():
    known = files()
    graph = {}
    for name, path in known.items():
        below = set()
        for module in imports(path.read_text()):
            parts = module.split(".")
            ends = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            below |= {next((end for end in ends if end in known), "__init__")}
        graph[name] = below - {name}
    graphlib.TopologicalSorter(graph).prepare()


def test_every_package_says_what_it_is_for():
    for path in PACKAGE.rglob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert 2 <= len(text.splitlines()) <= 6, path


def test_files_hold_one_idea():
    for path in (*PACKAGE.rglob("*.py"), ROOT / "train.py", ROOT / "eval.py"):
        longest = LONGEST if path.parent != ROOT else 70
        assert len(path.read_text().splitlines()) <= longest, path


def test_configs_import_no_library_code():
    paths = list((ROOT / "configs").rglob("*.py"))
    assert ROOT / "configs" / "decathlon" / "svd.py" in paths
    for path in paths:
        assert list(imports(path.read_text())) == [], path


def test_only_experiments_know_config_files():
    """Commands, which start programs, know them too."""
    for name, path in files().items():
        package = name.split(".")[0]
        if package in PACKAGES and package not in ("experiment", "commands"):
            text = path.read_text()
            assert not {"ml_collections", "ConfigDict"} & set(re.findall(r"\w+", text)), name


def test_tensorflow_is_not_imported():
    code = (
        "import sys, radapt_jax.experiment.run, radapt_jax.startup, tensorflow_datasets;"
        "print([name for name in sys.modules if name.split('.')[0] == 'tensorflow'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
