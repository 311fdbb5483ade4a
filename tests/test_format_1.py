"""A family that was saved in format 1: it loads, predicts the same, and can be trained further.

The fixture was trained and saved by version 0.1.0 before cards had format 2: a dense family of
ResNet-26 of width 1/16 with domains of every kind, the same compressed jointly, one domain as an
adapter file, and what all of them predicted for four images.
"""

import json
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from test_end_to_end import small

from radapt_jax import Family, Joint, LowRank, NoAdapter, Parallel, ResNet26, Series
from radapt_jax.experiment.run import train_and_evaluate

KINDS = {
    "pictures": NoAdapter,
    "digits": Parallel,
    "surfaces": Parallel,
    "faces": Series,
    "faces_own": NoAdapter,
    "surfaces_low": LowRank,
}


@pytest.fixture
def saved(tmp_path):
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "family_format_1.zip") as archive:
        archive.extractall(tmp_path / "saved")
    return tmp_path / "saved"


def test_it_predicts_the_same(saved):
    expected = np.load(saved / "expected.npz")
    images = expected["images"]
    for where in ("dense", "joint"):
        family = Family.load(saved / where)
        assert family.shared.backbone == ResNet26(1 / 16)
        for name in family:
            found = family.predict(images, domain=name)
            np.testing.assert_allclose(found, expected[f"{where}/{name}"], atol=1e-6)
        names = (list(family)[:4] * 4)[:4]
        mixed = family.predict(images, domains=names)
        np.testing.assert_allclose(mixed, expected[f"{where}/mixed"], atol=1e-6)
    dense = Family.load(saved / "dense")
    folded = dense.fold("digits").predict(images)
    np.testing.assert_allclose(folded, expected["folded/digits"], atol=1e-6)
    other = Family(dense.shared)
    assert other.load_domain(saved / "digits.safetensors") == "digits"
    np.testing.assert_array_equal(
        other.predict(images, domain="digits"), dense.predict(images, domain="digits")
    )


def test_its_networks_are_those_of_now(saved, tmp_path):
    family = Family.load(saved / "dense")
    assert {name: type(family[name].spec.adapter) for name in family} == KINDS
    assert family["digits"].spec.adapter.init == "he_normal"
    joint = Family.load(saved / "joint")
    assert isinstance(joint.shared.basis, Joint)
    assert joint["digits"].spec.adapter.ranks == joint.shared.basis.ranks
    family.save(tmp_path / "again")
    again = Family.load(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "shared" / "card.json").read_text())["format"] == 2
    assert {name: again[name].spec for name in again} == {
        name: family[name].spec for name in family
    }


def test_it_can_be_trained_further(saved, cache_dir, tmp_path):
    changes = {"backbone.width": 1 / 16, "train.steps": 2}
    config = small("linear", cache_dir, **changes, domains="faces", init_from=str(saved / "dense"))
    rows = train_and_evaluate(config, tmp_path / "new")
    assert [row.domain for row in rows] == ["pictures", "faces"]
    config = small("join", cache_dir, **changes, domains="faces", init_from=str(saved / "joint"))
    joined = train_and_evaluate(config, tmp_path / "joined")
    assert {row.domain: row.method for row in joined}["faces"] == "join"


def test_a_run_that_was_begun_with_it_goes_on(saved, cache_dir):
    """Its config.json has entries that have become options of the adapter kind since."""
    before = json.loads((saved / "dense" / "config.json").read_text())
    config = small("parallel", cache_dir)
    config.update_from_flattened_dict(
        {
            "backbone.width": 1 / 16,
            "train.steps": before["train"]["steps"],
            "domains": "digits,surfaces,faces",
            "init_from": before["init_from"],
            "adapter.options": {"init": "he_normal"},
        }
    )
    with pytest.raises(ValueError, match="another config") as refused:
        train_and_evaluate(
            small("parallel", cache_dir, init_from=before["init_from"]), saved / "dense"
        )
    assert "adapter.options.init: was 'he_normal'" in str(refused.value)
    rows = train_and_evaluate(config, saved / "dense")
    assert len(rows) == len(KINDS)
