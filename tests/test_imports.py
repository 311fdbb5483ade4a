"""A file imports from lower floors only, and no TensorFlow comes in."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

# Lowest first; files on one floor do not import one another.
FLOORS = [
    {
        *("version", "values", "writable", "trees", "files", "hosts", "layers", "metrics"),
        *("programs", "stopping", "tables", "command_line"),
    },
    {"domains"},
    {"data.sources", "data.images", "data.archives", "labels", "data.cutting", "data.facts"},
    {
        "convolution",
        "data.listing",
        "data.prepared",
        "data.embedded",
        "data.building",
        "data.augment",
    },
    {"adapters", "data.cache", "data.folder", "score", "workdir", "training_state"},
    {"models.resnet26"},
    {"models", "data.batches", "data.loading", "data.decathlon", "published"},
    {"data.resident", "models.initial", "optim", "member", "compress"},
    {"fuse", "serving", "update", "checkpoint", "bundle", "bank"},
    {"exporting", "steps", "folded", "predictor"},
    {"family"},
    {"compression", "methods", "original", "merging"},
    {"settings"},
    {"evaluate", "plan"},
    {"challenge", "failures", "logs", "engine"},
    {"course", "report"},
    {"training", "decathlon_table"},
    {"loop", "startup", "__main__"},
]


def imports(source):
    """Yield the modules of ours that a source imports, each with the name that is taken from it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_ours(alias.name):
                    yield alias.name.removeprefix("radapt_jax").lstrip("."), ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "we import by full names"
            if _is_ours(node.module):
                for alias in node.names:
                    yield node.module.removeprefix("radapt_jax").lstrip("."), alias.name


def _is_ours(module):
    return module.split(".")[0] == "radapt_jax"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import radapt_jax.loop", ("loop", "")),
        ("import radapt_jax.data.cache as cache", ("data.cache", "")),
        ("if x:\n    import radapt_jax", ("", "")),
        ("from radapt_jax import loop", ("", "loop")),
        ("from radapt_jax.data import cache", ("data", "cache")),
    ],
)
def test_every_way_to_import_is_seen(source, found):
    assert list(imports(f"import radapt_jaxes, jax.loop\n{source}")) == [found]


def test_imports_only_go_down():
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    package = ROOT / "radapt_jax"
    files = {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in package.rglob("*.py")
    }
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    del files["__init__"], files["data"]
    assert files.keys() == floor.keys(), "every file has a floor"
    for name, path in files.items():
        for module, item in imports(path.read_text()):
            below = f"{module}.{item}".strip(".")
            below = below if below in floor else module
            assert below, f"{name} imports the package, which imports all of it"
            assert floor[below] < floor[name], f"{name} imports {below}"


def test_configs_import_no_library_code():
    paths = list((ROOT / "configs").rglob("*.py"))
    assert ROOT / "configs" / "decathlon" / "svd.py" in paths
    for path in paths:
        assert list(imports(path.read_text())) == [], path


def test_tensorflow_is_not_imported():
    code = (
        "import sys, radapt_jax.loop, radapt_jax.startup, tensorflow_datasets;"
        "print([name for name in sys.modules if name.split('.')[0] == 'tensorflow'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
