"""What the benchmarks count, keep and draw; the times themselves are not tested."""

import sys

import pytest
from conftest import ROOT
from PIL import Image

sys.path.append(str(ROOT / "benchmarks"))

import chart
import figures
import roofline
import rows
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
    assert set(rows.ROWS) <= moved.keys() <= work.multiply_adds(1.0, 64).keys()


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
    return {"row": row, "who": who, "batch": batch, **speeds, **FACTS, **changed}


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
