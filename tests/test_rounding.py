"""Domains rounded to a few bits: steps, exact round trips, small files, refusals."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from families import empty_family, member_of, whole

import radapt_jax as rj
from radapt_jax.family import adapter_file, rounding
from radapt_jax.family.rounding import Rounding
from radapt_jax.utils import trees

FEW = (2, 3, 4, 8)
WIDE = 0.25


@pytest.fixture(scope="module")
def member(digits):
    return member_of(digits, "parallel", 1, width=WIDE)


@pytest.fixture
def family(member):
    made = empty_family(WIDE)
    made.add("it", member)
    return made


def columns_of(bits):
    """Columns of all magnitudes, one of zeros, one with a single value far out."""
    stream = np.random.default_rng(bits)
    found = stream.normal(size=(40, 7)).astype(np.float32) * 10.0 ** np.arange(-20, 15, 5)
    found[:, 3] = 0
    found[0, 4] *= 100
    return found.astype(np.float32)


@pytest.mark.parametrize("bits", FEW)
def test_the_step_of_a_column_is_the_best_of_those_tried(bits):
    """Against a search by hand, column by column."""
    values = columns_of(bits)
    found = rounding.rounded(values, bits)
    levels = 2 ** (bits - 1) - 1
    for column, ours in zip(values.T.astype(np.float64), found.T, strict=True):
        if not column.any():
            np.testing.assert_array_equal(ours, 0)
            continue
        assert len(np.unique(np.abs(ours))) <= levels + 1
        tried = []
        for share in np.linspace(0.4, 1, 61):
            step = float(jnp.bfloat16(share * np.abs(column).max() / levels))
            near = np.clip(np.rint(column / step), -levels, levels) * step
            tried.append(np.square(column - near).sum())
        assert np.square(column - ours).sum() <= 1.0001 * min(tried)


MATRICES = ((40, 7), (1, 5), (3, 3, 4, 6), (2, 1))
VECTOR = (9,)  # float16 at least


@pytest.mark.parametrize(
    ("bits", "shape"),
    [
        *((bits, shape) for bits in (*FEW, 16, 32) for shape in MATRICES),
        *((bits, VECTOR) for bits in (16, 32)),
    ],
)
def test_packing_is_exact(bits, shape):
    stream = np.random.default_rng(1)
    values = stream.normal(size=shape).astype(np.float32)
    found = rounding.rounded(values, bits)
    stored = rounding.packed(found, bits)
    assert stored.nbytes == rounding.size_of(shape, bits)
    again = rounding.unpacked(stored, shape, bits)
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(rounding.rounded(found, bits), found)  # it is rounded already


@pytest.mark.parametrize("bits", FEW)
def test_a_file_is_small_and_exact(bits, family, digits, tmp_path):
    sizes = {}
    for name, asked in (("whole", None), ("small", bits)):
        family.save_domain("it", tmp_path / name, bits=asked)
        leaves = safetensors.numpy.load_file(tmp_path / name)
        sizes[name] = sum(it.nbytes for at, it in leaves.items() if "/adapter/" in at)
    alphas = [it for at, it in trees.flatten(family.variables("it")).items() if "/adapter/" in at]
    steps = sum(2 * it.shape[-1] for it in alphas if it.shape[0] > 3)
    expected = sum(it.size for it in alphas) * bits / 8 + steps
    assert sizes["small"] == pytest.approx(expected, rel=0.02)
    member = adapter_file.read(tmp_path / "small")
    assert member.rounding == Rounding(bits)
    theirs = family["it"].rounded(Rounding(bits))
    for path, leaf in trees.flatten(theirs.variables).items():
        np.testing.assert_array_equal(trees.flatten(member.variables)[path], leaf, path)
    again = empty_family(WIDE)
    again.load_domain(tmp_path / "small")
    images = whole(digits.splits["test"], range(4))
    family.add("it", theirs)
    expected = family.predict(images, domain="it")
    np.testing.assert_array_equal(again.predict(images, domain="it"), expected)
    np.testing.assert_allclose(again.fold("it").predict(images), expected, atol=1e-5)


def test_the_finer_the_closer(family, digits):
    images = whole(digits.splits["test"], range(16))
    dense, plain = family.predict(images, domain="it"), family["it"]
    lost = []
    for bits in FEW:
        family.add("it", plain.rounded(Rounding(bits)))
        lost.append(np.abs(family.predict(images, domain="it") - dense).max())
    assert lost == sorted(lost, reverse=True)
    assert 10 * lost[-1] < lost[0]


def test_kept_in_a_workdir_it_stays_rounded(family, tmp_path):
    small = family["it"].rounded()
    family.add("it", small)
    family.save(tmp_path / "run")
    again = rj.Family.load(tmp_path / "run")
    assert again["it"].rounding == Rounding()
    again.save_domain("it", tmp_path / "file")
    family.save_domain("it", tmp_path / "theirs")
    assert (tmp_path / "file").stat().st_size == (tmp_path / "theirs").stat().st_size


def test_what_changes_a_domain_forgets_that_it_was_rounded(family, digits, tmp_path):
    family.add("it", family["it"].rounded())
    rj.renew_statistics(family, "it", whole(digits.splits["train"], range(32)), count=128)
    assert family["it"].rounding is None
    family.add("it", dataclasses.replace(family["it"], rounding=Rounding()))
    with pytest.raises(ValueError, match=r"are not rounded to 16 bits; round the domain again"):
        family.save_domain("it", tmp_path / "it")
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize("kind", ["series", "low_rank", "mask"])
def test_other_kinds(kind, digits, tmp_path):
    """Factors are rounded one by one; bits stay bits."""
    family = empty_family(1 / 16)
    spec = rj.ModelSpec(rj.ResNet26(1 / 16), rj.adapters.make_options(kind))
    own = rj.initial_variables(spec, 10, seed=0)
    own.pop("params")
    family.add("it", rj.Member(digits.domain, spec, own))
    family.save_domain("it", tmp_path / "it", bits=4)
    member = adapter_file.read(tmp_path / "it")
    masks = [it for at, it in trees.flatten(member.variables).items() if at.endswith("scores")]
    assert all(set(np.unique(mask)) <= {0.0, np.float32(0.01)} for mask in masks)
    assert bool(masks) == (kind == "mask")


def test_damage_and_bad_values_are_refused(family, tmp_path):
    path = tmp_path / "it"
    family.save_domain("it", path, bits=4)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    leaves = safetensors.numpy.load_file(path)
    name = "adapters/stage1/block1/conv1/adapter/kernel"
    flipped = leaves[name].copy()
    flipped[-1] ^= 1
    for wrong in (flipped, leaves[name][:-1], leaves[name].astype(np.float32)):
        safetensors.numpy.save_file({**leaves, name: wrong}, path, metadata)
        with pytest.raises(ValueError, match=r"is damaged|does not fit this network"):
            adapter_file.read(path)
    for wrong in ({"adapters": 5}, {"head": True}, {"vectors": 8}, {"adapters": "4"}):
        with pytest.raises(ValueError, match="rounding: found"):
            Rounding(**wrong)
    member = family["it"]
    stats = trees.flatten(member.variables["batch_stats"])
    far = trees.unflatten({at: it * 1e6 for at, it in stats.items()})
    with pytest.raises(ValueError, match=r"float16 ends at 65504\. Keep these variables as they"):
        member.changed(batch_stats=far).rounded()
    assert member.changed(batch_stats=far).rounded(Rounding(vectors=32)).rounding.vectors == 32
