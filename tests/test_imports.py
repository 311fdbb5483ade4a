"""A file imports from lower floors only, and no TensorFlow comes in."""

import ast
import subprocess
import sys

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


def imports(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("radapt_jax"):
            for alias in node.names:
                yield node.module.removeprefix("radapt_jax").lstrip("."), alias.name


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
        for module, item in imports(path):
            below = f"{module}.{item}".strip(".")
            below = below if below in floor else module
            assert floor[below] < floor[name], f"{name} imports {below}"


def test_configs_import_no_library_code():
    for path in (ROOT / "configs").glob("*.py"):
        assert list(imports(path)) == [], path


def test_tensorflow_is_not_imported():
    code = (
        "import sys, radapt_jax.loop, radapt_jax.startup, tensorflow_datasets;"
        "print([name for name in sys.modules if name.split('.')[0] == 'tensorflow'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
