"""Domains rounded to a few bits: steps, exact round trips, small files, refusals."""

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from families import empty_family, member_of, of_classes, whole

import radapt_jax as rj
from radapt_jax.evaluation.statistics import renewed
from radapt_jax.family import adapter_file, codes, packing, rounding
from radapt_jax.family.rounding import Form, Rounding
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


@pytest.mark.parametrize(("bits", "even"), [*((bits, False) for bits in FEW), (2, True), (3, True)])
def test_the_step_of_a_column_is_the_best_of_those_tried(bits, even):
    """Against a search by hand, column by column."""
    values = columns_of(bits)
    found = rounding.rounded(values, Form(bits, even=even))
    half = 0.5 if even else 0
    levels = np.arange(2**bits - 1 + even) - 2 ** (bits - 1) + 1 - half
    assert len(levels) == 2**bits - (not even)
    assert levels[0] == -levels[-1] == -Form(bits, even=even).top
    for column, ours in zip(values.T.astype(np.float64), found.T, strict=True):
        if not column.any():
            np.testing.assert_array_equal(ours, 0)
            continue
        assert len(np.unique(ours)) <= len(levels)
        tried = []
        for share in np.linspace(0.2, 1, 81) if even else np.linspace(0.4, 1, 61):
            step = float(jnp.bfloat16(share * np.abs(column).max() / levels[-1]))
            apart = np.square(column[:, None] - levels * step)
            tried.append(apart.min(1).sum())
        assert np.square(column - ours).sum() <= 1.0001 * min(tried)


MATRICES = ((40, 7), (1, 5), (3, 3, 4, 6), (2, 1))
VECTOR = (9,)  # float16 at least


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        *((Form(bits), shape) for bits in (*FEW, 16, 32) for shape in MATRICES),
        *((Form(bits, even=True), shape) for bits in (2, 3) for shape in MATRICES),
        *((Form(bits, True), VECTOR) for bits in (8, 16, 32)),
        *((Form(bits, True, True), VECTOR) for bits in (8, 16)),
    ],
)
def test_packing_is_exact(form, shape):
    stream = np.random.default_rng(1)
    values = stream.normal(size=shape).astype(np.float32)
    values = np.square(values) if form.positive else values
    found = rounding.rounded(values, form)
    stored = codes.packed(found, form)
    assert stored.nbytes == codes.size_of(shape, form)
    again = codes.unpacked(stored, shape, form)
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(rounding.rounded(found, form), found)  # it is rounded already


@pytest.mark.parametrize(("octaves", "most"), [(0, 2**-9), (3, 2**-6), (12, 2**-5), (60, 2**-3)])
def test_variances_keep_their_ratios(octaves, most):
    """The wider their range, the fewer digits; none is lost, however small."""
    stream = np.random.default_rng(2)
    values = np.exp2(stream.uniform(-octaves, 0.5, 300)).astype(np.float32)
    values[:2] = 2.0**-octaves, 2**0.5
    found = rounding.rounded(values, Form(8, True, True))
    assert np.abs(found / values - 1).max() <= most
    stored = codes.packed(found, Form(8, True, True))
    np.testing.assert_array_equal(codes.unpacked(stored, (300,), Form(8, True, True)), found)
    values[5] = 0
    assert rounding.rounded(values, Form(8, True, True))[5] == 0
    assert not rounding.rounded(np.zeros(4), Form(8, True, True)).any()
    for wrong in (-1, np.inf, np.nan):
        values[5] = wrong
        with pytest.raises(ValueError, match="found variances that are"):
            rounding.rounded(values, Form(8, True, True))


@pytest.mark.parametrize("form", [Form(4), Form(2, even=True), Form(8, True), Form(16)])
def test_broken_values_are_refused(form):
    """They would become a column of zeros, and a domain that failed one that works."""
    for broken in np.nan, np.inf:
        values = np.array([[0.3, 1], [broken, 2], [-0.2, 3]], np.float32)
        with pytest.raises(ValueError, match="infinite or NaN"):
            rounding.rounded(values[:, 0] if form.is_vector else values, form)


@pytest.mark.parametrize("bits", [2, 8])
def test_the_few_numbers_of_an_affine_mask_stay_exact(bits, digits):
    """Each changes all weights: 8 bits of the largest would be felt in every output."""
    member = member_of(digits, "affine_mask", 1)
    scales = {
        path: np.array([0.003, 1.01, -0.004, 0.02], np.float32)
        for path in trees.flatten(member.variables["adapters"])
        if path.endswith("/scales")
    }
    adapters = trees.unflatten({**trees.flatten(member.variables["adapters"]), **scales})
    kept = trees.flatten(member.changed(adapters=adapters).rounded(Rounding(bits)).variables)
    assert scales
    for path, leaf in scales.items():
        np.testing.assert_allclose(kept[f"adapters/{path}"], leaf, rtol=2**-11)


@pytest.mark.parametrize("bits", FEW)
def test_a_file_is_small_and_exact(bits, family, digits, tmp_path):
    rounded = family["it"].rounded(Rounding(bits))
    family.save_domain("it", tmp_path / "small", bits=bits)
    [stored] = safetensors.numpy.load_file(tmp_path / "small").values()
    leaves = trees.flatten(rounded.variables)
    forms = {at: Rounding(bits).form_of(at, it.shape) for at, it in leaves.items()}
    assert {it.bits for it in forms.values()} == {bits, 8, 16}  # adapters, head, norms
    expected = sum(codes.size_of(it.shape, forms[at]) for at, it in leaves.items())
    assert stored.nbytes == expected
    alphas = [it for at, it in leaves.items() if "/adapter/" in at]
    assert expected < sum(it.size for it in alphas) * bits / 8 + 15_000
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
    family.add("it", member_of(digits, "parallel", 1, width=WIDE))
    plain = renewed(family, "it", digits.splits["train"], count=256)
    family.add("it", plain)
    dense = family.predict(images, domain="it")
    lost = []
    for bits in FEW:
        family.add("it", plain.rounded(Rounding(bits)))
        lost.append(np.abs(family.predict(images, domain="it") - dense).mean())
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
    wrong, before = dataclasses.replace(family["it"], rounding=Rounding()), family["it"]
    told = r"are not rounded to \d+ bits; round the domain again"
    with pytest.raises(ValueError, match=told):
        family.add("it", wrong)
    assert family["it"] is before
    with pytest.raises(ValueError, match=told):
        adapter_file.write(wrong, tmp_path / "it")
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
    assert all(set(np.unique(mask)) <= {0.0, 1.0} for mask in masks)
    assert bool(masks) == (kind == "mask")


def test_a_mask_of_scores_is_not_packed_as_if_it_were_bits(digits):
    """A member that is said to be rounded, and is not."""
    raw = member_of(digits, "mask", 1)
    scores = {at: it for at, it in trees.flatten(raw.variables).items() if at.endswith("scores")}
    rounded = raw.rounded(Rounding())
    variables = trees.unflatten({**trees.flatten(rounded.variables), **scores})
    member = dataclasses.replace(rounded, variables=variables)
    with pytest.raises(ValueError, match="holds other values than 0 and 1"):
        packing.packed(member)


def test_32_bits_are_the_values_as_they_are(family, tmp_path):
    """Head and norms too."""
    family.save_domain("it", tmp_path / "it", bits=32)
    member = adapter_file.read(tmp_path / "it")
    assert member.rounding is None
    jax.tree.map(np.testing.assert_array_equal, member.variables, family["it"].variables)


def test_damage_and_bad_values_are_refused(family, tmp_path):
    path = tmp_path / "it"
    family.save_domain("it", path, bits=4)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    [(name, whole_file)] = safetensors.numpy.load_file(path).items()
    flipped = whole_file.copy()
    flipped[-1] ^= 1
    for wrong in (flipped, whole_file[:-1], whole_file.astype(np.float32)):
        safetensors.numpy.save_file({name: wrong}, path, metadata)
        with pytest.raises(ValueError, match=r"is damaged|does not fit this network"):
            adapter_file.read(path)
    for wrong in ({"adapters": 5}, {"head": True}, {"vectors": 4}, {"adapters": "4"}, {"even": 1}):
        with pytest.raises(ValueError, match="rounding: found"):
            Rounding(**wrong)
    member = family["it"]
    stats = trees.flatten(member.variables["batch_stats"])
    far = trees.unflatten({at: it * 1e6 for at, it in stats.items()})
    with pytest.raises(ValueError, match=r"float16 ends at 65504\. Keep these variables as they"):
        member.changed(batch_stats=far).rounded(Rounding(vectors=16))
    assert member.changed(batch_stats=far).rounded(Rounding(vectors=32)).rounding.vectors == 32


@pytest.mark.parametrize("bits", [2, 4])
def test_files_of_earlier_versions_are_read(bits, member, tmp_path):
    """They had a name for each variable, 3 levels of 2 bits, and no word of it in the card."""
    rounded_to = Rounding(bits, even=False)
    small = dataclasses.replace(member.rounded(rounded_to), shared="0" * 64)
    adapter_file.write(small, tmp_path / "new")
    with safetensors.safe_open(tmp_path / "new", "numpy") as file:
        metadata = file.metadata()
    card = json.loads(metadata["radapt_jax"])
    del card["rounding"]["even"]
    metadata["radapt_jax"] = text = json.dumps(card)
    metadata["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    leaves = trees.flatten(small.variables)
    by_path = {at: codes.packed(it, rounded_to.form_of(at, it.shape)) for at, it in leaves.items()}
    safetensors.numpy.save_file(by_path, tmp_path / "old", metadata)
    old, new = (trees.flatten(adapter_file.read(tmp_path / it).variables) for it in ("old", "new"))
    assert old.keys() == new.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(old[path], leaf)
        np.testing.assert_array_equal(new[path], leaf)
    assert (tmp_path / "new").stat().st_size < (tmp_path / "old").stat().st_size - 10_000


@pytest.mark.parametrize("vectors", [8, 16])
def test_norms_of_few_bits(vectors, family, digits, tmp_path):
    """A file that is smaller still predicts nearly the same."""
    images = whole(digits.splits["test"], range(16))
    dense = family.predict(images, domain="it")
    family.add("it", family["it"].rounded(Rounding(8, vectors=vectors)))
    assert np.abs(family.predict(images, domain="it") - dense).max() < 0.02
    family.save_domain("it", tmp_path / "it")
    again = empty_family(WIDE)
    again.load_domain(tmp_path / "it")
    np.testing.assert_array_equal(
        again.predict(images, domain="it"), family.predict(images, domain="it")
    )


@pytest.mark.parametrize(
    ("kind", "bits", "kilobytes"),
    [
        *(("parallel", None, 2761), ("parallel", 8, 711), ("parallel", 4, 389)),
        *(("joint", None, 1471), ("joint", 8, 389), ("joint", 4, 228)),
    ],
)
def test_the_files_of_a_wide_network(kind, bits, kilobytes, digits, tmp_path):
    """Those of docs/compression.md: width 1, 100 classes, head included; joint has K = C/2."""
    member = member_of(of_classes(digits, 100), kind, 1, width=1)
    member = dataclasses.replace(member, shared="0" * 64)
    adapter_file.write(member if bits is None else member.rounded(Rounding(bits)), tmp_path / "it")
    assert (tmp_path / "it").stat().st_size == pytest.approx(1000 * kilobytes, abs=1500)
