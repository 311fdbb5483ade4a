"""What docs/security.md promises: nothing is unpickled, and no name leads out of its folder."""

import ast
import dataclasses
import io
import json
import re
import tarfile

import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT
from families import empty_family, member_of
from PIL import Image

from radapt_jax import Family, __main__
from radapt_jax.data.load import load_domain
from radapt_jax.family import adapter_file, checkpoint

PACKAGE = sorted((ROOT / "radapt_jax").rglob("*.py"))
MODULES = {
    *("pickle", "_pickle", "pickletools", "cloudpickle", "dill", "marshal", "shelve", "torch"),
    *("subprocess", "yaml", "runpy", "shutil.unpack_archive"),
}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "extract", "extractall"}
CALLS |= {"read_pickle", "unpack_archive", "import_module"}


def called(node):
    """Return the dotted name of what a call calls, as far as it is written out."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) else ".".join(parts)


def dangers(source):
    """Yield what a file does that could run what it reads, or write where that says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (name for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            name = called(node.func)
            plain = [it.value.value for it in node.keywords if it.arg == "allow_pickle"
                     and isinstance(it.value, ast.Constant)]  # fmt: skip
            if name.split(".")[0] != "re" and name.split(".")[-1] in CALLS:
                yield name
            if name in ("np.load", "numpy.load", "np.savez", "np.save") and plain != [False]:
                yield f"{name} without allow_pickle=False"
            if name in ("joblib.load", "joblib.dump"):
                yield name


ALLOWED = {
    "utils/distributed.py": ["pickle"],  # between processes of a run
    # PyTorch's files: opcodes are told apart, and looked at; tests/test_torch_file.py has the rest.
    "convert/pickled.py": ["pickletools"],
}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run(path):
    name = path.relative_to(ROOT / "radapt_jax").as_posix()
    assert list(dangers(path.read_text())) == ALLOWED.get(name, [])


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "joblib.load(path)",
        "tar.extractall(folder)",
        "eval(text)",
        "os.system(line)",
    ],
)
def test_the_scan_finds_what_it_is_for(source):
    assert list(dangers(source))


def test_a_cache_with_a_pickle_in_it_is_refused(tmp_path, image_folder):
    """Reading it would make a file."""
    defaults = {"source": "folder", "dir": image_folder, "size": 8, "resize": 8}
    load_domain("rocks", defaults, {}, tmp_path)

    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "harm"), "w")

    for index in tmp_path.glob("rocks-train-*/index.npz"):
        np.savez(index, labels=np.array([Harm()], dtype=object), offsets=np.zeros(1))
    with pytest.raises(ValueError, match="is damaged"):
        load_domain("rocks", defaults, {}, tmp_path)
    assert not (tmp_path / "harm").exists()


# Tar files


def png():
    stream = io.BytesIO()
    Image.new("RGB", (12, 12), "red").save(stream, "PNG")
    return stream.getvalue()


def everything(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


HOSTILE = {
    "a name that climbs": ("../../../train/a/1.png", tarfile.REGTYPE, ""),
    "an absolute name": ("/train/a/1.png", tarfile.REGTYPE, ""),
    "a symbolic link": ("train/a/1.png", tarfile.SYMTYPE, "/etc/passwd"),
    "a symbolic link to a folder": ("train/b", tarfile.SYMTYPE, "/etc"),
    "a hard link": ("train/a/1.png", tarfile.LNKTYPE, "/etc/passwd"),
    "a link of an image's name": ("train/a/0.png", tarfile.SYMTYPE, "/etc/passwd"),
    "a device": ("train/a/1.png", tarfile.CHRTYPE, ""),
    "a pipe": ("train/a/1.png", tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_tar_file_writes_nothing_and_leads_nowhere(case, tmp_path):
    name, kind, target = HOSTILE[case]
    root = tmp_path / "deep" / "data"
    root.mkdir(parents=True)
    with tarfile.open(root / "d.tar", "w") as tar:
        for member, type_ in (("train/a/0.png", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = type_, target if member == name and type_ == kind else ""
            info.size = len(png()) if type_ == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(png()))
    before = everything(tmp_path)
    defaults = {"source": "folder", "dir": root, "size": 8, "resize": 8, "val_fraction": 0.0}
    data = load_domain("d", defaults, {}, tmp_path / "cache")
    plain = kind == tarfile.REGTYPE  # an image under whatever name; links and devices are none
    assert len(data.splits["train"]) == (2 if plain else 1)
    new = everything(tmp_path) - before
    assert {path.split("/")[0] for path in new} == {"cache"}
    files = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert {re.sub(r"^\.d-.*\.lock$", "lock", file) for file in files} <= {
        *("lock", "done.json", "index.npz", "pixels.u8")
    }


# Names in cards


@pytest.fixture(scope="module")
def family(digits):
    family = empty_family(1 / 32)
    family.add("digits", member_of(digits, "none", 1, width=1 / 32))
    return family


PATHS = ["../../x", "/tmp/radapt_x", "..", "a/b", "a\\b", ".", "a\0"]


@pytest.mark.parametrize("name", PATHS)
def test_the_name_in_a_file_leads_nowhere(name, family, tmp_path):
    family.save(tmp_path / "run")
    family.save_domain("digits", tmp_path / "file")
    card = adapter_file.read_card(tmp_path / "file")
    text = json.dumps({**card, "domain": {**card["domain"], "name": name}})
    metadata = {adapter_file.KEY: text, "sha256": adapter_file._digest(text)}
    leaves = safetensors.numpy.load_file(tmp_path / "file")
    safetensors.numpy.save_file(leaves, tmp_path / "file", metadata)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="found domain name"):
        Family(family.shared).load_domain(tmp_path / "file")
    with pytest.raises(SystemExit, match="found domain name"):
        __main__.main(["swap", str(tmp_path / "run"), str(tmp_path / "file")])
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", PATHS)
def test_the_names_in_a_workdir_lead_nowhere(name, family, tmp_path):
    family.save(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="found domain name"):
        Family.load(tmp_path, [name])
    for part in ("shared", "domains/digits"):
        path = tmp_path / part / checkpoint.CARD
        whole = path.read_text()
        card = json.loads(whole)
        if part == "shared":
            card["source"] = name
        else:
            card["domain"]["name"] = name
        path.write_text(json.dumps(card))
        with pytest.raises(ValueError, match="found domain name"):
            Family.load(tmp_path)
        path.write_text(whole)
    assert everything(tmp_path) == before


def test_no_size_in_a_card_is_part_of_a_path(digits):
    """Caches are named after the domain, the split and the length to which images are resized."""
    with pytest.raises(ValueError, match="resize"):
        dataclasses.replace(digits.spec, resize="../../x")


@pytest.mark.parametrize("page", ["security", "reliability"])
def test_every_promise_names_a_test_that_is_there(page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    named = set(re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", text))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
