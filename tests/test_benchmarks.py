"""What the benchmarks count, keep, refuse and draw; the times themselves are not tested."""

import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from PIL import Image

sys.path.append(str(ROOT / "benchmarks"))

import blocks
import chart
import figures
import machine
import quiet
import roofline
import rows
import tables
import traced
import work

from configs import base

FACTS = {"size": 64, "width": 1.0, "dtype": "float32", "device": "cpu"}


@pytest.mark.parametrize(
    ("row", "giga"),
    [
        ("infer backbone", 0.853),
        ("infer parallel, unfolded", 0.948),
        ("infer parallel, folded", 0.853),
        ("train parallel, unfolded", 1.986),
        ("train parallel", 1.80),
        ("train finetune", 2.555),
    ],
)
def test_multiply_adds_of_an_image(row, giga):
    assert work.multiply_adds(1.0, 64)[row] / 1e9 == pytest.approx(giga, rel=0.01)


def test_bytes_of_an_image():
    """At an endless batch the filters cost nothing, and activations alone are left."""
    outputs = 4 * (32 * 64**2 + 8 * 64 * 32**2 + 8 * 128 * 16**2 + 8 * 256 * 8**2)
    moved = work.bytes_moved(1.0, 64, 10**12, 4)
    assert moved["infer backbone"] == pytest.approx(2 * outputs)
    assert moved["train parallel"] == pytest.approx(5 * outputs)
    assert work.bytes_moved(1.0, 64, 10**12, 2)["train norm"] == pytest.approx(2.5 * outputs)
    assert {*rows.ROWS} - {rows.KEPT} <= moved.keys() <= work.multiply_adds(1.0, 64).keys()


def test_the_nearer_ceiling_bounds():
    row = {"row": "infer backbone", "batch": 10**12, "images_per_second": "50", **FACTS}
    adds = work.multiply_adds(1.0, 64)["infer backbone"]
    slow_product = roofline.line_of(row, 2 * adds * 100, 1e15)
    assert (slow_product["bound"], slow_product["share"]) == ("compute", "0.500")
    slow_memory = roofline.line_of(row, 1e18, 200 * 2**22)
    assert (slow_memory["bound"], slow_memory["share"]) == ("memory", "0.500")


@pytest.mark.parametrize("method", [*rows.TRAINING, "scratch"])
def test_rows_train_what_the_recipes_train(method):
    """So that scratch is finetune's step, measured once."""
    config = base.recipe(method)
    same = {other.removeprefix("train "): row for row, other in rows.SAME.items()}
    setup = rows.setup_of(same.get(method, f"train {method}"))
    assert setup["kind"] == config.adapter.kind
    assert setup["decay"] == config.optim.decay.to_dict()


def line(row, who="radapt_jax", batch=32, **changed):
    speeds = {"images_per_second": "40.0", "least": "30.0", "most": "45.0"}
    return {
        "row": row,
        "who": who,
        "batch": batch,
        **speeds,
        **FACTS,
        "commit": "0123abc",
        **changed,
    }


def test_figures_are_replaced_by_their_key(tmp_path):
    path, key = tmp_path / "train.csv", ("row", "who", "batch", *FACTS)
    columns = (*line("any"), "peak_gib")
    figures.put(path, columns, key, [line("a"), line("a", "PyTorch"), line("b")])
    figures.put(path, columns, key, [line("a", images_per_second="50.0", peak_gib="1.5")])
    figures.put(path, columns, key, [line("a", batch=128), line("a", device="gpu")])
    found = [
        tuple(row[name] for name in ("row", "who", "batch", "device")) for row in figures.read(path)
    ]
    assert found == [
        ("a", "radapt_jax", "32", "cpu"),
        ("a", "PyTorch", "32", "cpu"),
        ("b", "radapt_jax", "32", "cpu"),
        ("a", "radapt_jax", "128", "cpu"),
        ("a", "radapt_jax", "32", "gpu"),
    ]
    first, second, *_ = figures.read(path)
    assert (first["images_per_second"], first["peak_gib"]) == ("50.0", "1.5")
    assert (second["images_per_second"], second["peak_gib"]) == ("40.0", "")
    assert list(tmp_path.iterdir()) == [path]


def test_chart(tmp_path):
    lines = [
        line(row, who, batch) for row in rows.ROWS for who in chart.COLOURS for batch in (1, 32)
    ]
    marks = [line("train parallel", allowed_images_per_second="60.0")]
    chart.draw(lines, marks, tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as picture:
        assert min(picture.size) > 400
    with pytest.raises(ValueError, match="expected one device"):
        chart.draw([*lines, line("train norm", device="gpu")], [], tmp_path / "mixed.png")


BENCHMARKS = ("input", "many", "roofline", "serve", "service", "shares", "start", "train")
CSVS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.csv"))


def make(target, *variables):
    """Return the Python commands that make would run, a list of arguments each."""
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", target, *variables]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [shlex.split(line) for line in found.replace("\\\n", " ").splitlines()]


def measuring(commands):
    """Return of those that measure: the Python, the script and its arguments."""
    scripts = {f"benchmarks/{name}.py" for name in BENCHMARKS}
    return [(it[0], it[1], it[2:]) for it in commands if len(it) > 1 and it[1] in scripts]


def option(arguments, name, otherwise=None):
    return arguments[arguments.index(name) + 1] if name in arguments else otherwise


def measure(monkeypatch, name, *arguments):
    """Run a benchmark's command in this process."""
    path = str(ROOT / "benchmarks" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    runpy.run_path(path, run_name="__main__")


def module(name):
    """Return a benchmark as a module, by a name that is not that of the train.py above it."""
    place = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", place)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_benchmarks_are_those_that_have_flags():
    scripts = (ROOT / "benchmarks").glob("*.py")
    flagged = sorted(it.stem for it in scripts if "machine.add_flags(" in it.read_text())
    assert flagged == sorted(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_device_that_is_not_there_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "backend", lambda: "cpu")
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit, match="found JAX running on cpu; expected gpu"):
        measure(monkeypatch, name, "--allow-dirty", "--device", "gpu", "--out", out)
    assert not out.exists()


def test_the_command_ends_with_an_exit_code_and_says_what_to_do(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "train.py"), "--allow-dirty"]
    command += ["--device", "tpu", "--out", str(tmp_path / "train_tpu.csv")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "found JAX running on cpu; expected tpu" in done.stderr
    assert "pip install -e '.[cuda]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_peer_runs_where_ours_does():
    train = module("train")
    train.check_peer_device("cuda", "gpu")
    train.check_peer_device("cpu", "cpu")
    with pytest.raises(SystemExit, match="found PyTorch running on cpu; expected cuda"):
        train.check_peer_device("cpu", "gpu")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A clone with a file of each sort; benchmarks take it for their own."""
    files = ("radapt_jax/fuse.py", "radapt_jax/published.csv", "benchmarks/train.csv")
    for name in (*files, "README.md", "docs/performance.md", "docs/speed.png"):
        place = tmp_path / "clone" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("first\n")
    for arguments in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "All"),
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path / "clone", check=True)
    monkeypatch.setattr(machine, "ROOT", tmp_path / "clone")
    return tmp_path / "clone"


def test_what_measuring_writes_is_no_edit(repository):
    for name in ("benchmarks/train.csv", "README.md", "docs/performance.md", "docs/speed.png"):
        (repository / name).write_text("second\n")
    machine.check_tree()
    assert re.fullmatch("[0-9a-f]{7,}", machine.commit())


@pytest.mark.parametrize("name", ["radapt_jax/fuse.py", "radapt_jax/published.csv"])
def test_an_edited_tree_is_named(repository, name):
    (repository / name).write_text("second\n")
    with pytest.raises(SystemExit, match=rf"(?s)edited files:\n M {name}\n.*Commit or stash"):
        machine.check_tree()
    assert machine.commit().endswith("-dirty")


def test_files_outside_of_a_clone_have_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.commit() == "unknown"
    with pytest.raises(SystemExit, match="found no commit"):
        machine.check_tree()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_edited_tree_is_refused(name, repository, tmp_path, monkeypatch):
    (repository / "radapt_jax" / "fuse.py").write_text("second\n")
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit, match="edited files"):
        measure(monkeypatch, name, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("commit", ["0123abc-dirty", "unknown"])
def test_a_row_of_a_tree_edited_meanwhile_is_refused(commit, tmp_path):
    """The tree was clean when the run began."""
    path, edited = tmp_path / "train.csv", line("a", commit=commit)
    with pytest.raises(SystemExit, match=f"found 'a' measured at {commit}"):
        figures.put(path, tuple(edited), ("row",), [edited])
    assert not path.exists()
    figures.put(path, tuple(edited), ("row",), [edited], allow_dirty=True)
    assert figures.read(path)[0]["commit"] == commit


def test_make_bench_writes_every_file_then_draws():
    commands = make("bench")
    outs = [
        option(arguments, "--out", script.replace(".py", ".csv"))
        for _, script, arguments in measuring(commands)
    ]
    studies = ("transfer.csv", "imagenet.csv", "methods.csv", "compression.csv", "study.csv")
    others = (*studies, "recipes.csv", "original.csv")  # the last: figures of others
    elsewhere = ("_gpu.csv", "_epyc.csv")
    own = [name for name in CSVS if not name.endswith(elsewhere) and name not in others]
    assert sorted(outs) == [f"benchmarks/{name}" for name in own]
    assert {option(arguments, "--device") for *_, arguments in measuring(commands)} == {"cpu"}
    drawing = ("chart.py", "study/picture.py", "tables.py")
    assert [it[1] for it in commands[-3:]] == [f"benchmarks/{name}" for name in drawing]


def test_make_bench_gpu_measures_a_gpu_with_a_jax_for_one():
    commands = make("bench-gpu", "CUDA_VENV=there")
    assert ["there/bin/python", "-m", "pip", "install", "--quiet", "-e", ".[cuda]"] in commands
    for python, _, arguments in measuring(commands):
        assert python == "there/bin/python"
        assert option(arguments, "--device") == "gpu"
        assert option(arguments, "--out").endswith("_gpu.csv")
    assert len(measuring(commands)) == 3


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.stem)
def test_tables_are_what_the_files_give(page):
    """If not: `make tables`."""
    text = page.read_text()
    assert tables.drawn(text, page.parent) == text
    assert (
        text.count("<!-- table:") == text.count("<!-- end -->") == len(tables.MARKS.findall(text))
    )


def test_every_file_and_table_is_shown():
    found = [mark for page in tables.PAGES for mark in tables.MARKS.findall(page.read_text())]
    assert {name for _, name, *_ in found} == set(blocks.BLOCKS)
    assert {file for *_, files, _ in found for file in files.split()} >= set(CSVS)


@pytest.mark.skipif(not quiet.STAT.is_file(), reason="only Linux counts what processes use")
def test_work_of_others_is_seen_and_ours_is_not():
    """Half a second of a core: of this process, of one that is named, and of one that is not."""
    busy = [sys.executable, "-c", "while True: pass"]
    other = subprocess.Popen(busy)
    try:
        theirs, ours = quiet.Watch(), quiet.Watch([other.pid])
        time.sleep(1.0)
        shares = theirs.others(), ours.others()
    finally:
        other.kill()
        other.wait()
    # Other tests may run beside this one: they are in both shares.
    assert shares[0] - shares[1] > 0.3 / os.cpu_count()
    watch, start = quiet.Watch(), time.process_time()
    while time.process_time() < start + 0.5:
        pass
    assert 0 <= watch.others() <= 1


def test_a_disturbed_row_is_marked(tmp_path):
    facts = {"n": "10", "peak_gib": "1.50", "versions": "jax 0.12", "variant": ""}
    rows_of = [line("train parallel", **facts, others=others) for others in ("", "0.02", "0.30")]
    assert [figures.was_quiet(row) for row in rows_of] == [True, True, False]
    assert "†" not in blocks.train(rows_of[:2])
    drawn = blocks.train(rows_of[2:])
    assert "40.0 [30.0, 45.0] †" in drawn
    assert "other processes used more than a twentieth" in drawn


def test_the_pictures_are_of_the_files():
    """If not: `make tables`."""
    sheets = [figures.read(ROOT / "benchmarks" / name) for name in ("train.csv", "roofline.csv")]
    with Image.open(ROOT / "docs" / "speed.png") as picture:
        assert picture.text["Source"] == figures.digest(*sheets)
    with Image.open(ROOT / "docs" / "study.png") as picture:
        source = figures.digest(figures.read(ROOT / "benchmarks" / "study.csv"))
        assert picture.text["Source"] == source


def test_a_table_follows_its_file(tmp_path):
    page = "Before.\n<!-- table: train train.csv -->\nold\n<!-- end -->\nAfter.\n"
    assert "Not measured yet" in tables.drawn(page, tmp_path, tmp_path)
    facts = {"n": "10", "peak_gib": "1.50", "versions": "jax 0.12", "variant": ""}
    ours = line("train parallel", **facts)
    columns, path = tuple(ours), tmp_path / "train.csv"
    peer = line("train parallel", "PyTorch", **facts, images_per_second="50.0", least="48.0")
    key = ("row", "who", "batch")
    figures.put(path, columns, key, [ours, {**peer, "versions": "torch 2"}])
    first = tables.drawn(page, tmp_path, tmp_path)
    assert "40.0 [30.0, 45.0] | 50.0 [48.0, 45.0] | 0.80 | 1.50 | 1.50 |" in first
    assert "[train.csv](train.csv): n = 10; batch 32; 64 px; width 1; float32; cpu;" in first
    assert "jax 0.12; torch 2; at commit 0123abc." in first
    assert first.startswith("Before.\n")
    assert first.endswith("<!-- end -->\nAfter.\n")
    assert tables.drawn(first, tmp_path, tmp_path) == first
    later = {**ours, "images_per_second": "60.0", "commit": "4567def-dirty"}
    figures.put(path, columns, key, [later], allow_dirty=True)
    second = tables.drawn(first, tmp_path, tmp_path)
    assert "| 60.0 [30.0, 45.0] |  |  | 1.50 |  |" in second  # the peer is of another commit
    assert "at commit 0123abc or 4567def-dirty, where code had been edited." in second
    figures.put(path, columns, key, [{**ours, "row": "train norm", "device": "gpu"}])
    with pytest.raises(ValueError, match="expected one device"):
        tables.drawn(first, tmp_path, tmp_path)


def test_the_input_benchmark_runs(tmp_path, monkeypatch):
    """On few images; what it measures is not asserted."""
    measured = module("input")
    few = measured.photographs(16, [(72, 72), (72, 96)])
    monkeypatch.setattr(measured, "photographs", lambda amount, shapes: few)
    monkeypatch.setattr(measured, "BATCH", 8)
    found = list(measured.reading(tmp_path, "mixed shapes", [], repeats=1, steps=1))
    assert len(found) == 3
    assert all(speed > 0 for _, speeds in found for speed in speeds)


PROGRAM = """
%fused (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %sum = f32[4]{0} add(%a, %a)
}
%moved (a: f32[2,2]) -> f32[2,2] {
  %a.1 = f32[2,2]{1,0} parameter(0)
  ROOT %turned = f32[2,2]{0,1} transpose(%a.1), dimensions={1,0}
}
ENTRY %main (x: f32[4]) -> f32[4] {
  %conv.1 = f32[1,4,4,8]{3,2,1,0} convolution(%x, %k), metadata={op_name="f/conv1/adapter/c"}
  %dot.1 = f32[4,4]{1,0} dot(%x, %k), metadata={op_name="f/conv1/adapter/dot_general"}
  %dot.2 = f32[4,4]{1,0} dot(%x, %k), metadata={op_name="f/conv1/jit(_product)/dot_general"}
  %fusion.1 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="f/norm1/add"}
  %fusion.2 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="f/conv1/add"}
  %fusion.3 = f32[2,2]{0,1} fusion(%x), kind=kLoop, calls=%moved, metadata={op_name="f/conv1/t"}
  ROOT %call.1 = f32[4]{0} call(%x), to_apply=%fused
}
"""


def test_operations_are_told_apart():
    kinds = traced.kinds_of(PROGRAM)
    assert kinds["conv.1"] == kinds["dot.1"] == kinds["fusion.2"] == traced.CONVOLUTION
    assert kinds["dot.2"] == traced.PRODUCT
    assert kinds["fusion.1"] == traced.ARITHMETIC
    assert kinds["fusion.3"] == traced.COPY
    assert "call.1" not in kinds  # its time is that of what it calls


def test_time_is_divided_among_what_runs():
    """From 0 to 10: a convolution until 4, with a product from 2 to 6, a copy from 8 to 10."""
    kinds = {"conv": traced.CONVOLUTION, "dot": traced.PRODUCT, "copy": traced.COPY}
    found = traced.shares_of([(0, 4, "conv"), (2, 6, "dot"), (8, 10, "copy")], kinds)
    expected = {traced.CONVOLUTION: 0.3, traced.PRODUCT: 0.3, traced.COPY: 0.2}
    assert found == pytest.approx({traced.ARITHMETIC: 0, traced.DISPATCH: 0.2, **expected})


def test_a_step_is_traced(tmp_path):
    """Of a tiny network, in a process of its own."""
    out = tmp_path / "shares.csv"
    command = [sys.executable, str(ROOT / "benchmarks" / "shares.py"), "--allow-dirty"]
    command += ["--width=0.125", "--size=16", "--batch=4", "--steps=2", f"--out={out}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    subprocess.run([*command, "--only=train parallel"], env=environment, check=True)
    shares = {it["kind"]: float(it["share"]) for it in figures.read(out)}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert min(shares[traced.CONVOLUTION], shares[traced.PRODUCT]) > 0
    assert "train parallel, width 0.125, 16 px" in blocks.shares(figures.read(out))
