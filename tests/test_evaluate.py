"""What is said of domains that cannot be evaluated."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, SMALL
from families import empty_family, member_of

from radapt_jax.data.load import load_domain
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.utils import trees


@pytest.fixture
def family(digits):
    """A domain whose card says where its images are, and one made by hand."""
    family = empty_family()
    made = member_of(digits, "parallel", 1)
    family.add("by_hand", made)
    family.add("digits", dataclasses.replace(made, data=digits.spec))
    return family


def test_a_domain_whose_images_are_not_known_gets_a_row(family, cache_dir, caplog):
    rows = evaluate_family(family, cache_dir=cache_dir)
    assert [row.domain for row in rows] == ["by_hand", "digits"]
    assert [row.top1 is None for row in rows] == [True, False]
    assert rows[0].parameters == rows[1].parameters
    assert "by_hand" in caplog.text
    assert "does not say where its images are" in caplog.text
    with pytest.raises(ValueError, match=r"'by_hand'.*does not say where its images are"):
        evaluate_family(family, domains=["by_hand"], cache_dir=cache_dir)


def test_a_folder_with_other_classes_now_costs_no_other_domain_its_result(
    image_folder, digits, cache_dir, tmp_path, caplog
):
    root = tmp_path / "data"
    shutil.copytree(image_folder, root)
    rocks = load_domain("rocks", {**SMALL, "source": "folder", "dir": str(root)}, {}, cache_dir)
    family = empty_family()
    for name, data in (("digits", digits), ("rocks", rocks)):
        family.add(name, dataclasses.replace(member_of(data, "none", 1), data=data.spec))
    (more := root / "rocks" / "train" / "unknown").mkdir()
    shutil.copy(next((root / "rocks" / "train").glob("*/0.png")), more)
    rows = evaluate_family(family, cache_dir=cache_dir)
    assert [row.top1 is None for row in rows] == [False, True]
    assert "rocks: not evaluated. domain 'rocks': found classes" in caplog.text
    with pytest.raises(ValueError, match="not the images it was trained on"):
        evaluate_family(family, domains=["rocks"], cache_dir=cache_dir)


def test_a_domain_that_says_nan_has_no_accuracy(family, digits, cache_dir, caplog):
    """It would have that of its first class."""
    leaves = trees.flatten(family["digits"].variables["adapters"])
    leaves["head/bias"] = np.full_like(leaves["head/bias"], np.nan)
    family.add("broken", family["digits"].changed(adapters=trees.unflatten(leaves)))
    rows = {row.domain: row for row in evaluate_family(family, cache_dir=cache_dir)}
    assert (rows["broken"].top1, rows["broken"].split) == (None, "NaN")
    assert rows["digits"].top1 is not None
    assert "found NaN for 500 of 500 images" in caplog.text
    with pytest.raises(FloatingPointError, match=r"domain 'broken': found NaN"):
        evaluate_family(family, domains=["broken"], cache_dir=cache_dir)


@pytest.mark.parametrize(
    ("amount", "why"), [(0, "it holds no domains"), (1, "none of its domains has images here")]
)
def test_eval_fails_where_nothing_could_be_evaluated(amount, why, family, cache_dir, tmp_path):
    for name in ("digits", "by_hand")[: 2 - amount]:
        family.remove(name)
    family.save(tmp_path)
    flags = ["--workdir", tmp_path, "--cache", cache_dir]
    done = subprocess.run(
        [sys.executable, ROOT / "eval.py", *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert f"error: nothing could be evaluated of {tmp_path}: {why}." in done.stderr
    assert f"{amount} domains" in done.stdout
    assert ("by_hand" in done.stdout) == bool(amount)
