"""A thousand domains on one backbone: read when they are used, and no more held than asked for."""

import gc
import json
import os
import shutil
import weakref

import numpy as np
import pytest
from families import empty_family, member_of, whole

from radapt_jax import Family
from radapt_jax.family import checkpoint

COUNT, AT_MOST = 1000, 8


@pytest.fixture(scope="module")
def workdir(digits, faces, tmp_path_factory):
    """Two real members saved, and under a thousand names: the files linked, the cards written."""
    folder = tmp_path_factory.mktemp("many")
    family = empty_family()
    family.add("a", member_of(digits, "parallel", 1))
    family.add("b", member_of(faces, "parallel", 2))
    family.save(folder)
    for index in range(COUNT):
        new = folder / "domains" / f"d{index:03}"
        shutil.copytree(folder / "domains" / "ab"[index % 2], new, copy_function=os.link)
        card = json.loads((new / "card.json").read_text())
        card["domain"]["name"] = new.name
        (new / "card.json").unlink()
        (new / "card.json").write_text(json.dumps(card))
    for name in "ab":
        shutil.rmtree(folder / "domains" / name)
    return folder


@pytest.fixture
def family(workdir):
    return Family.load(workdir, at_most=AT_MOST)


def held(family):
    return family._bank.held()


def test_nothing_is_read_before_it_is_used(family):
    assert len(family) == COUNT
    assert family.domains[-1] == "d999"
    assert "d500" in family
    assert held(family) == []


def test_no_more_is_held_than_asked_for(family, digits, workdir):
    pixels = whole(digits.splits["test"], range(4))
    few = Family.load(workdir, ["d000", "d001"])
    first = weakref.ref(family["d000"].variables["adapters"]["head"]["kernel"])
    found = {}
    for index in (*range(30), 0, 1):
        name = f"d{index:03}"
        found[name] = family.predict(pixels, domain=name)
        assert len(held(family)) <= AT_MOST
        if index == 29:
            gc.collect()
            assert first() is None
    assert held(family)[-2:] == ["d000", "d001"]
    for name in ("d000", "d001"):
        np.testing.assert_array_equal(found[name], few.predict(pixels, domain=name))


def test_a_mixed_batch_of_more_than_are_held(family, digits, workdir):
    names = [f"d{index:03}" for index in range(20)]
    pixels = whole(digits.splits["test"], range(20))
    found = family.predict(pixels, domains=names)
    assert len(held(family)) <= AT_MOST
    alone = Family.load(workdir, names).predict(pixels, domains=names)
    np.testing.assert_allclose(found, alone, atol=2e-6)


def test_domains_in_memory_alone_stay(family, digits):
    pixels = whole(digits.splits["test"], range(2))
    family.add("mine", member_of(digits, "parallel", 7))
    expected = family.predict(pixels, domain="mine")
    for index in range(2 * AT_MOST):
        family.predict(pixels, domain=f"d{index:03}")
    assert "mine" in held(family)
    np.testing.assert_array_equal(family.predict(pixels, domain="mine"), expected)
    family.remove("d003")
    assert "d003" not in family
    with pytest.raises(KeyError, match="found no domain 'd003'"):
        family.predict(pixels, domain="d003")
    assert len(family) == COUNT


def test_a_domain_that_was_saved_is_one_of_those_on_disk(workdir, digits, tmp_path):
    """It may leave memory, and comes back as it was saved."""
    for name in ("d000", "d001"):
        shutil.copytree(workdir / "domains" / name, tmp_path / "domains" / name)
    shutil.copytree(workdir / "shared", tmp_path / "shared")
    family = Family.load(tmp_path, at_most=1)
    family.add("d000", member_of(digits, "parallel", 7))
    family.add("mine", member_of(digits, "parallel", 8))
    ours = {name: family[name].card()["sha256"] for name in ("d000", "mine")}
    for name in ours:
        checkpoint.save_member(family[name], tmp_path)
        family.saved(name)
    assert len(held(family)) == 1
    family["d001"]
    assert held(family) == ["d001"]
    assert {name: family[name].card()["sha256"] for name in ours} == ours
    with pytest.raises(KeyError, match="found no domain 'd002'"):
        family.saved("d002")
    everything = Family.load(tmp_path)
    everything.saved("mine")  # all are held without at_most
    assert len(held(everything)) == 3


def test_reading_again_and_again_takes_no_memory(workdir):
    family = Family.load(workdir, at_most=1)

    def objects(times):
        for index in range(times):
            family[f"d{index % 2:03}"]
        gc.collect()
        return len(gc.get_objects())

    before = objects(4)
    assert objects(20) - before < 100  # one of Orbax's metadata had 2,000


def test_pinned_domains_stay(workdir, digits):
    """And are not counted among the last used ones."""
    pixels = whole(digits.splits["test"], range(1))
    family = Family.load(workdir, at_most=2, pinned=["d000"])
    assert held(family) == ["d000"]
    family.pin("d001")
    kept = {name: family[name] for name in ("d000", "d001")}
    for index in range(2, 8):
        family.predict(pixels, domain=f"d{index:03}")
        family.predict(pixels, domains=[f"d{index:03}"])
    assert set(held(family)) == {"d000", "d001", "d006", "d007"}
    assert all(family[name] is member for name, member in kept.items())
    family.unpin("d000")
    family.unpin("d005")  # was not pinned
    assert len(held(family)) == 3
    family["d002"], family["d003"]
    assert set(held(family)) == {"d001", "d002", "d003"}
    family.remove("d001")
    assert "d001" not in held(family)


def test_only_a_domain_that_is_there_can_be_pinned(workdir):
    family = Family.load(workdir, ["d000", "d001"])
    family.pin("d001")  # all are held without at_most
    for change in (family.pin, family.unpin):
        with pytest.raises(KeyError, match=r"found no domain 'd002'.*d000"):
            change("d002")
    with pytest.raises(KeyError, match="found no domain 'default'"):
        Family.load(workdir, at_most=1, pinned="default")
    assert held(Family.load(workdir, at_most=1, pinned="d500")) == ["d500"]


def test_one_that_is_damaged_is_said_when_it_is_used(workdir, digits, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(workdir / "shared", copy / "shared")
    shutil.copytree(workdir / "domains" / "d007", copy / "domains" / "d007")
    card = copy / "domains" / "d007" / "card.json"
    facts = json.loads(card.read_text())
    card.write_text(json.dumps({**facts, "sha256": "0" * 64}))
    family = Family.load(copy, at_most=1)
    with pytest.raises(ValueError, match="d007 is damaged"):
        family.predict(whole(digits.splits["test"], range(1)), domain="d007")
    with pytest.raises(ValueError, match="found at_most 0; expected at least 1"):
        Family.load(copy, at_most=0)
