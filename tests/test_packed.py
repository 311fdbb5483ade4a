"""Rounded domains are packed in memory, and widened when they are used."""

import dataclasses
import threading

import chex
import jax
import numpy as np
import pytest
from families import empty_family, member_of, whole

from radapt_jax.family import packed
from radapt_jax.family.packed import WIDE, Packed
from radapt_jax.family.rounding import Rounding
from radapt_jax.utils import trees

COUNT = 40  # more than are held widened


@pytest.fixture(scope="module")
def members(digits, faces):
    """Three rounded members, and the same without a word of it, which are held as they are."""
    made = {
        "int4": member_of(digits, "parallel", 1).rounded(Rounding(4)),
        "int2": member_of(faces, "parallel", 2).rounded(Rounding(2)),
        "int8": member_of(digits, "modulation", 3).rounded(Rounding(8)),
    }
    return {name: (it, dataclasses.replace(it, rounding=None)) for name, it in made.items()}


@pytest.fixture
def families(members):
    small, plain = empty_family(), empty_family()
    for name, (rounded, as_it_is) in members.items():
        small.add(name, rounded)
        plain.add(name, as_it_is)
    return small, plain


def test_a_packed_domain_is_what_it_was(members):
    for rounded, _ in members.values():
        held = Packed.of(rounded)
        again = held.widened()
        chex.assert_trees_all_equal(dict(again.variables), dict(rounded.variables))
        assert again.rounding == rounded.rounding
        assert not trees.flatten(held.facts.variables)
        there = sum(it.nbytes for it in trees.flatten(rounded.variables).values())
        assert (
            sum(it.nbytes for it in held.stored.values()) < 0.75 * there
        )  # vectors are half of it at this width
    rounded, _ = members["int4"]
    wrong = jax.tree.map(lambda leaf: leaf + 0.01, dict(rounded.variables))
    with pytest.raises(ValueError, match=r"not rounded to \d+ bits"):
        Packed.of(dataclasses.replace(rounded, variables=wrong))


def test_a_family_uses_packed_domains_like_others(families, digits, tmp_path):
    """Predictions, folding, files and disk, bit for bit."""
    pixels = whole(digits.splits["test"], range(6))
    small, plain = families
    for name in small:
        chex.assert_trees_all_equal(small.variables(name), plain.variables(name))
        expected = plain.predict(pixels, domain=name)
        np.testing.assert_array_equal(small.predict(pixels, domain=name), expected)
        folded, again = (it.fold(name).predict(pixels) for it in families)
        np.testing.assert_array_equal(folded, again)
    names = ["int4", "int2"] * 3
    mixed, expected = (it.predict(pixels, domains=names) for it in families)
    np.testing.assert_array_equal(mixed, expected)
    small.save_domain("int2", tmp_path / "int2.safetensors")
    small.load_domain(tmp_path / "int2.safetensors", "again")
    chex.assert_trees_all_equal(small.variables("again"), plain.variables("int2"))
    small.save(tmp_path / "family")
    assert small.parameters("int4") == plain.parameters("int4")
    removed = small.remove("int4")
    chex.assert_trees_all_equal(dict(removed.variables), dict(plain["int4"].variables))


@pytest.fixture
def many(members):
    family = empty_family()
    for index in range(COUNT):
        family.add(f"d{index:02}", members[("int4", "int2")[index % 2]][0])
    return family


def widened(family):
    return [name for name in family._bank._wide if family._bank.is_packed(name)]


def test_few_are_wide_at_once(many, digits, members):
    """In the bank and in what predictions keep; the last used are the ones that stay."""
    assert widened(many) == []
    pixels = whole(digits.splits["test"], range(2))
    for name in many.domains:
        many.predict(pixels, domain=name)
        assert len(widened(many)) <= WIDE
    assert widened(many) == many.domains[-WIDE:]
    assert len(many._predictor._made) <= WIDE
    many.add("plain", members["int4"][1])
    many.predict(pixels, domain="plain")
    for name in many.domains:
        many.predict(pixels, domain=name)
    assert "plain" in many._bank._wide
    assert len(many._predictor._made) <= WIDE + 1


def test_a_mixed_batch_of_more_than_are_wide(many, digits):
    names = many.domains
    pixels = whole(digits.splits["test"], range(COUNT))
    found = many.predict(pixels, domains=names)
    stacked = [key for key in many._predictor._made if key.stacked]
    assert max(len(key.versions) for key in stacked) <= WIDE
    for index, name in enumerate(names):
        own = many.predict(pixels[index : index + 1], domain=name)[0]
        np.testing.assert_allclose(found[index, : len(own)], own, atol=2e-6)


def test_several_threads(many, digits, monkeypatch):
    """While each uses another domain than the last one did."""
    monkeypatch.setattr(packed, "WIDE", 2)
    monkeypatch.setattr("radapt_jax.family.bank.WIDE", 2)
    expected = [trees.fingerprint(many[name].variables) for name in ("d00", "d01")]
    wrong = []

    pixels = whole(digits.splits["test"], range(1))

    def use(start):
        for index in range(start, start + 60):
            name = f"d{index % COUNT:02}"
            many.predict(pixels, domain=name)
            if trees.fingerprint(many[name].variables) != expected[index % 2]:
                wrong.append(name)

    threads = [threading.Thread(target=use, args=(start,)) for start in (0, 7, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(widened(many)) <= 2
