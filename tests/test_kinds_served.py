"""Domains of every adapter kind in one family: trained, mixed, saved, exported, compressed."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from families import Tiny, whole
from jax import export

import radapt_jax as rj
from radapt_jax.adapters import KINDS, make_options
from radapt_jax.adapters.base import is_adapters
from radapt_jax.compress.which import sources, targets
from radapt_jax.family import adapter_file
from radapt_jax.models import BACKBONES
from radapt_jax.train.devices import ManyDomains, OneDomain
from radapt_jax.train.job import Job
from radapt_jax.utils import trees

SHARING = [kind for kind in KINDS if KINDS[kind].shares()]
ALONE = [kind for kind in KINDS if kind not in SHARING]
APART = [kind for kind in KINDS if KINDS[kind].filters_apart and kind in ALONE]
MASKS = ("mask", "affine_mask")
DROPOUT = {"dropout": (0.2, 0.2)}
STEPS = {"affine_mask": 6}  # its scores have no gradient before its scales have moved
# So that a few steps move some scores across the threshold.
QUICK = {kind: {"threshold": 0.5, "scores": 0.500001} for kind in MASKS}


def options_of(kind):
    checks = KINDS[kind].Options.checks
    chosen = {**(DROPOUT if "dropout" in checks else {}), **QUICK.get(kind, {})}
    return make_options(kind, init="he_normal", **chosen)


def empty():
    params = rj.initial_variables(rj.ModelSpec(Tiny()), 2, seed=0)["params"]
    return rj.Family(rj.Shared(params, Tiny()))


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(6))


@pytest.fixture(scope="module", autouse=True)
def registered():
    BACKBONES["tiny"] = Tiny
    yield
    del BACKBONES["tiny"]


@pytest.fixture(scope="module")
def family(digits):
    """A domain of each kind, trained for a few steps on eight devices, in bfloat16."""
    made, split = empty(), digits.splits["train"]
    before = made.fingerprint
    for kind in ALONE:
        rj.fit(
            made,
            kind,
            whole(split, range(40)),
            split.targets[:40],
            adapter=options_of(kind),
            domain=rj.DomainOptions(size=16, resize=16, flip=False),
            options=rj.TrainOptions(
                **{"steps": STEPS.get(kind, 2), "evals": 1, "batch_size": 16},
                learning_rate=0.5,
                **{"dtype": "bfloat16", "sync_norm": True},
            ),
            progress=False,
        )
    assert made.fingerprint == before, "shared weights stay bit for bit"
    return made


def adapters_of(member):
    leaves = trees.flatten(member.variables["adapters"])
    return {path: leaf for path, leaf in leaves.items() if is_adapters(path)}


@pytest.mark.parametrize("kind", [kind for kind in ALONE if kind != "none"])
def test_all_of_it_is_trained(kind, family):
    member = family[kind]
    found = adapters_of(member)
    spec = dataclasses.replace(member.spec, adapter=options_of(kind))
    start = rj.initial_variables(spec, member.domain.num_classes, seed=0)["adapters"]
    for path, leaf in trees.flatten(start).items():
        if is_adapters(path):
            assert np.any(found[path] != leaf), path
    assert {path.partition("/adapter/")[2] for path in found} >= set(KINDS[kind].leaves) - {"bias"}


@pytest.mark.parametrize("kind", ALONE)
def test_folded_and_unfolded(kind, family, pixels):
    expected = family.predict(pixels, domain=kind)
    if not KINDS[kind].foldable:
        with pytest.raises(ValueError, match="found conv_adapter adapters on one, which have an"):
            family.fold(kind)
        return
    before = trees.to_numpy(family.variables(kind)["params"])
    for fold_norm in (False, True):
        folded = family.fold(kind, fold_norm=fold_norm)
        np.testing.assert_allclose(folded.predict(pixels), expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, folded.unfold(), before)


def test_a_mixed_batch_never_takes_one_adapter_for_all(family, pixels):
    """Every row is its own domain's, of kinds with filters of their own too."""
    for row in range(0, len(ALONE), len(pixels)):
        names = [ALONE[(row + at) % len(ALONE)] for at in range(len(pixels))]
        mixed = family.predict(pixels, domains=names)
        for at, name in enumerate(names):
            alone = family.predict(pixels, domain=name)[at]
            np.testing.assert_allclose(mixed[at], alone, atol=1e-5)


@pytest.mark.parametrize("kind", ALONE)
def test_a_mixed_batch_of_one_kind(kind, family, pixels, digits):
    """Two domains that differ in their adapters alone."""
    member = family[kind]
    spec = dataclasses.replace(member.spec, adapter=options_of(kind))
    fresh = trees.flatten(rj.initial_variables(spec, 10, seed=5)["adapters"])
    own = trees.flatten(member.variables["adapters"])

    def changed(path, leaf):
        if not is_adapters(path):
            return leaf
        if path.endswith("scores"):
            return (np.arange(leaf.size).reshape(leaf.shape) % 3 > 0).astype(np.float32)
        return np.asarray(fresh[path]) + 0.1

    other = trees.unflatten({path: changed(path, leaf) for path, leaf in own.items()})
    two = rj.Family(family.shared, [member])
    two.add("other", dataclasses.replace(member, variables={**member.variables, "adapters": other}))
    names = [kind, "other"] * (len(pixels) // 2)
    mixed = two.predict(pixels, domains=names)
    apart = {name: two.predict(pixels, domain=name) for name in (kind, "other")}
    for at, name in enumerate(names):
        np.testing.assert_allclose(mixed[at], apart[name][at], atol=1e-5)
    if kind != "none":
        assert np.abs(apart[kind] - apart["other"]).max() > 1e-3, "they differ"


@pytest.mark.parametrize("kind", ALONE)
def test_a_file_and_a_program_hold_all_of_it(kind, family, pixels, tmp_path):
    expected = family.predict(pixels, domain=kind)
    family.save_domain(kind, tmp_path / "it.safetensors")
    again = empty()
    again.load_domain(tmp_path / "it.safetensors")
    np.testing.assert_array_equal(again.predict(pixels, domain=kind), expected)
    again.save(tmp_path / "run")
    reloaded = rj.Family.load(tmp_path / "run")
    np.testing.assert_array_equal(reloaded.predict(pixels, domain=kind), expected)
    assert reloaded[kind].spec == family[kind].spec
    family.export(kind, tmp_path / "it.stablehlo", platforms="cpu")
    exported = export.deserialize((tmp_path / "it.stablehlo").read_bytes())
    np.testing.assert_allclose(exported.call(pixels), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [*APART, "conv_adapter"])
def test_domains_at_once_get_what_they_get_alone(kind, digits, faces):
    """Both on one device, each through filters of its own."""
    spec = rj.ModelSpec(Tiny(), options_of(kind))
    options = rj.TrainOptions(steps=4, batch_size=8, learning_rate=0.05)
    jobs = [
        Job(options, data, spec, rj.initial_variables(spec, data.domain.num_classes, seed=0))
        for data in (digits, faces)
    ]
    together = ManyDomains(jobs, [job.start() for job in jobs], jax.devices()[:1])
    for index in range(2):
        together.step(index)
    for index, job in enumerate(jobs):
        alone = OneDomain([job], [job.start()], jax.devices()[:1])
        for step in range(2):
            alone.step(step)
        expected = jax.tree.map(np.asarray, alone.state(0))
        chex.assert_trees_all_close(together.state(index), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_is_kept_and_counted_in_bits(kind, family, tmp_path):
    member = family[kind]
    masks = {path: it for path, it in adapters_of(member).items() if path.endswith("/scores")}
    weights = {"one": 3 * 3 * 3 * 8, "two": 3 * 3 * 8 * 8}
    assert {path.split("/")[0]: it.size for path, it in masks.items()} == weights
    values = np.concatenate([it.ravel() for it in masks.values()])
    assert set(values) == {0.0, 1.0}, "some weights are dropped, not all"
    more = 2 * 4 if kind == "affine_mask" else 0
    own = member.parameters(head=False) - family["none"].parameters(head=False)
    assert own == -(-216 // 32) + -(-576 // 32) + more
    path = tmp_path / "it.safetensors"
    family.save_domain(kind, path)
    stored = safetensors.numpy.load_file(path)
    for name, leaf in masks.items():
        bits = stored[f"adapters/{name}"]
        assert (bits.dtype, bits.size) == (np.uint8, -(-leaf.size // 8))
        np.testing.assert_array_equal(np.unpackbits(bits, count=leaf.size), leaf.ravel())


def test_real_scores_of_a_member_made_by_hand_are_not_rounded(family, tmp_path):
    member = family["mask"]
    leaves = trees.flatten(member.variables["adapters"])
    scores = {p: it * 0.3 + 0.1 if p.endswith("scores") else it for p, it in leaves.items()}
    real = dataclasses.replace(
        member, variables={**member.variables, "adapters": trees.unflatten(scores)}
    )
    adapter_file.write(real, tmp_path / "it.safetensors")
    again = adapter_file.read(tmp_path / "it.safetensors")
    for path, leaf in trees.flatten(again.variables["adapters"]).items():
        np.testing.assert_array_equal(leaf, scores[path])


def test_bits_of_another_size_are_refused(family, tmp_path):
    path = tmp_path / "it.safetensors"
    family.save_domain("mask", path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    stored = safetensors.numpy.load_file(path)
    name = "adapters/one/adapter/scores"
    for wrong in (stored[name][:-1], stored[name].astype(np.float32), stored[name] ^ 255):
        safetensors.numpy.save_file({**stored, name: wrong}, path, metadata)
        with pytest.raises(ValueError, match=r"does not fit this network|is damaged"):
            adapter_file.read(path)


def test_what_can_be_compressed_to_what():
    found = {kind: KINDS[kind].compresses for kind in targets()}
    assert found == {
        **{"low_rank": "parallel", "joint": "parallel"},
        **{"modulation_low_rank": "modulation", "modulation_joint": "modulation"},
        **{"conv_lora": "conv_lora", "conv_lora_joint": "conv_lora"},
    }
    assert sources() == ["parallel", "modulation", "conv_lora"]


@pytest.mark.parametrize("kind", targets())
def test_compressed_at_full_rank_it_predicts_the_same(kind, family, pixels):
    source = KINDS[kind].compresses
    dense = rj.Family(family.shared, [family[source]])
    dense.add("other", family[source])
    rule = rj.rank_rule("energy", energy=1.0)
    small = rj.compress_family(dense, kind, rule)
    assert (small.shared.basis is not None) == (kind in SHARING)
    for name in (source, "other"):
        assert small[name].spec.adapter.kind == kind
        expected = dense.predict(pixels, domain=name)
        np.testing.assert_allclose(small.predict(pixels, domain=name), expected, atol=1e-4)
    mixed = small.predict(pixels, domains=[source, "other"] * 3)
    np.testing.assert_allclose(mixed, dense.predict(pixels, domain=source), atol=1e-4)
    if kind in SHARING:
        joined, error = rj.join(small, dense["other"])
        assert error < 1e-3
        small.add("joined", joined)
        np.testing.assert_allclose(small.predict(pixels, domain="joined"), mixed, atol=1e-3)


def test_half_the_rank_of_factors_is_half_of_what_they_have(family):
    """And not of a full rank, which would make them larger."""
    dense = rj.Family(family.shared, [family["conv_lora"]])
    small = rj.compress_family(dense, "conv_lora", rj.rank_rule("uniform"))
    ranks = {
        made: {site.conv: spec.kind.rank(spec.adapter, site) for site in spec.sites()}
        for made, spec in (("dense", dense["conv_lora"].spec), ("small", small["conv_lora"].spec))
    }
    assert max(ranks["dense"].values()) > 1
    assert ranks["small"] == {conv: max(it // 2, 1) for conv, it in ranks["dense"].items()}


def test_kinds_without_a_matrix_are_not_compressed(family):
    rule = rj.rank_rule("uniform")
    for kind in set(ALONE) - set(sources()):
        with pytest.raises(ValueError, match=rf"found .*{kind}.* expected parallel adapters"):
            rj.compress_family(family, "joint", rule, domains=[kind])
    with pytest.raises(ValueError, match="Compress modulation to modulation_low_rank or modul"):
        rj.compress_family(family, "joint", rule, domains=["modulation"])
    basis = rj.compress_family(family, "joint", rule, domains=["parallel"])
    with pytest.raises(ValueError, match="has modulation adapters; expected parallel, which"):
        rj.join(basis, family["modulation"])
