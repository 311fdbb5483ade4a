"""Low-rank and joint compression (CVPR 2018, section 3.4)."""

import itertools

import chex
import numpy as np
import pytest
from families import empty_family, member_of, network, of_classes, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from radapt_jax import (
    Family,
    Member,
    compress_family,
    initial_variables,
    join,
    rank_rule,
    svd,
)
from radapt_jax.adapters.base import by_convolution
from radapt_jax.compress import ranks as compress_ranks
from radapt_jax.compress.ranks import Spectrum, budget_ranks, parameters, relative_error
from radapt_jax.compress.svd import stack
from radapt_jax.compress.which import alphas_of
from radapt_jax.utils import trees


@pytest.fixture(scope="module")
def dense(digits, faces):
    family = empty_family()
    family.add("digits", member_of(digits, "parallel", 1))
    family.add("faces", member_of(faces, "parallel", 2))
    family.add("seven", member_of(of_classes(digits, 7), "parallel", 3))
    family.add("plain", member_of(digits, "none", 4))
    return family


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(6))


def logits(family, name, images):
    normalised = images.astype(np.float32) / 128 - 1
    return family.model(name).apply(family.variables(name), normalised, train=False)


def products(family, name):
    """The dense α = β γᵀ of a compressed domain."""
    leaves = trees.flatten(family.variables(name)["adapters"])
    betas = by_convolution(trees.flatten(family.variables(name)["params"]), "beta")
    betas |= by_convolution(leaves, "beta")
    gammas = by_convolution(leaves, "gamma")
    return {conv: np.asarray(betas[conv] @ gamma) for conv, gamma in gammas.items()}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_joint_error_is_the_tail_of_the_spectrum(share, dense):
    """Eckart and Young: the squared error is the sum of the squared values that were cut."""
    alphas = alphas_of(dense)
    assert sorted(alphas) == ["digits", "faces", "seven"]
    family = compress_family(dense, "joint", rank_rule("uniform", share=share))
    found = {name: products(family, name) for name in alphas}
    for conv, matrix in stack(list(alphas.values())).items():
        rank = family.shared.basis.ranks[conv]
        tail = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[rank:]
        error = sum(np.square(alphas[name][conv] - found[name][conv]).sum() for name in alphas)
        assert np.sqrt(error) == pytest.approx(np.sqrt(np.square(tail).sum()), abs=1e-5)
    spectra = compress_ranks.spectra(list(alphas.values()))
    lost = sum(np.square(alphas[n][c] - found[n][c]).sum() for n in alphas for c in spectra)
    whole = sum(np.square(alphas[n][c]).sum() for n in alphas for c in spectra)
    expected = relative_error(spectra, family.shared.basis.ranks)
    assert np.sqrt(lost / whole) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["joint", "low_rank"])
def test_full_rank_is_the_dense_family(kind, dense, pixels):
    family = compress_family(dense, kind, rank_rule("uniform", share=1.0))
    for name in dense:
        assert family[name].spec.adapter.kind == ("none" if name == "plain" else kind)
        np.testing.assert_allclose(
            logits(family, name, pixels), logits(dense, name, pixels), atol=1e-5
        )
    assert dense["digits"].spec.adapter.kind == "parallel"  # the dense family is as it was


def test_low_rank_alone_is_each_domains_best(dense):
    family = compress_family(dense, "low_rank", rank_rule("uniform"))
    for conv, alpha in alphas_of(dense)["faces"].items():
        u, s, vt = np.linalg.svd(alpha.astype(np.float64), full_matrices=False)
        rank = family["faces"].spec.adapter.ranks[conv]
        best = (u[:, :rank] * s[:rank]) @ vt[:rank]
        np.testing.assert_allclose(products(family, "faces")[conv], best, atol=1e-5)


def test_adapters_on_some_layers_only(digits, pixels):
    family = empty_family()
    spec = network("parallel", width=0.125, stages=("late",), convs=("second",))
    variables = initial_variables(
        network("parallel", init="he_normal", stages=("late",), convs=("second",)), 10, 0
    )
    own = {name: variables[name] for name in ("adapters", "batch_stats")}
    family.add("late", Member(digits.domain, spec, own))
    for kind in ("joint", "low_rank"):
        small = compress_family(family, kind, rank_rule("uniform", share=1.0))
        np.testing.assert_allclose(
            small.predict(pixels, domain="late"), family.predict(pixels, domain="late"), atol=1e-5
        )
        assert len(small["late"].spec.adapter.ranks) == 4


def test_svd_of_a_domain_by_number_and_by_share(dense):
    member = dense["digits"]
    by_number, by_share = svd(member, 4), svd(member, 0.5)
    assert {beta.shape[1] for beta, _ in by_number.values()} == {3, 4}  # the stem has 3 inputs
    assert by_share["stage3/block2/conv1"][0].shape == (32, 16)
    for numpys, own in ((np.int64(4), 4), (np.float32(0.5), 0.5)):
        chex.assert_trees_all_equal(svd(member, numpys), svd(member, own))


@pytest.mark.parametrize("rank", [0, -1, np.int64(0), True, 1.5, {"stem": 0}])
def test_a_rank_out_of_range_is_refused(rank, dense):
    with pytest.raises(ValueError, match=r"found .*; expected"):
        svd(dense["digits"], rank)


def test_a_rule_may_give_numpys_integers(dense, tmp_path):
    for kind in ("joint", "low_rank"):
        small = compress_family(dense, kind, lambda spectra: dict.fromkeys(spectra, np.int64(1)))
        small.save(tmp_path / kind)
        assert set(Family.load(tmp_path / kind)["digits"].spec.adapter.ranks.values()) == {1}


def test_a_budget_is_for_all_domains_together(dense):
    budget = 5000
    for kind in ("joint", "low_rank"):
        small = compress_family(dense, kind, rank_rule("budget", budget=budget))
        spent = small.shared.basis_parameters() + sum(
            leaf.size
            for name in alphas_of(dense)
            for path, leaf in trees.flatten(small[name].variables["adapters"]).items()
            if path.endswith(("beta", "gamma"))
        )
        assert 0.9 * budget < spent <= budget


def test_rectangular_layers_and_the_papers_count(digits):
    """Nine domains at width 1: 2.0 times the backbone dense, about 1.5 at K = C/2."""
    family = empty_family(1.0)
    member = member_of(digits, "parallel", 1, width=1.0)
    for index in range(9):
        family.add(f"d{index}", member)
    # nine times the same adapters: what counts here are shapes, not values
    small = compress_family(family, "joint", rank_rule("uniform"))
    assert small.shared.basis.ranks["stem"] == 2
    assert small.shared.basis.ranks["stage2/block1/conv1"] == 32
    assert small.shared.params["stem"]["adapter"]["beta"].shape == (3, 2)
    gamma = small["d0"].variables["adapters"]["stage2"]["block1"]["conv1"]["adapter"]["gamma"]
    assert gamma.shape == (32, 128)
    basis = small.shared.basis_parameters() / small.shared.backbone_parameters()
    assert 1 + sum(family.ratio(name) for name in family) == pytest.approx(2.0, abs=0.02)
    assert 1 + basis + sum(small.ratio(name) for name in small) == pytest.approx(1.55, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(
        st.tuples(
            st.lists(st.floats(0.01, 10), min_size=1, max_size=3).map(lambda it: sorted(it)[::-1]),
            st.integers(1, 9),
        ),
        min_size=1,
        max_size=3,
    ),
    spare=st.integers(0, 30),
)
def test_budget_is_kept_and_well_spent(layers, spare):
    """Within one rank's energy of the best choice there is, found by trying all."""
    spectra = {
        f"l{index}": Spectrum(np.array(values), cost) for index, (values, cost) in enumerate(layers)
    }
    budget = sum(it.cost for it in spectra.values()) + spare
    ranks = budget_ranks(spectra, budget)
    assert parameters(spectra, ranks) <= budget

    def kept(choice):
        return sum(
            (it.values[:rank] ** 2).sum() for it, rank in zip(spectra.values(), choice, strict=True)
        )

    choices = itertools.product(*(range(1, len(it.values) + 1) for it in spectra.values()))
    fitting = [
        choice
        for choice in choices
        if sum(it.cost * rank for it, rank in zip(spectra.values(), choice, strict=True)) <= budget
    ]
    best = max(map(kept, fitting))
    largest = max((it.values[1:] ** 2).max(initial=0) for it in spectra.values())
    assert kept(ranks.values()) >= best - largest - 1e-9


def test_budget_beats_uniform_at_equal_parameters(dense):
    spectra = compress_ranks.spectra(list(alphas_of(dense).values()))
    uniform = rank_rule("uniform")(spectra)
    chosen = rank_rule("budget")(spectra)
    assert parameters(spectra, chosen) <= parameters(spectra, uniform)
    assert relative_error(spectra, chosen) < relative_error(spectra, uniform)
    for conv, rank in rank_rule("energy", energy=0.8)(spectra).items():
        squares = np.square(spectra[conv].values)
        assert squares[:rank].sum() >= 0.8 * squares.sum()
        assert rank == 1 or squares[: rank - 1].sum() < 0.8 * squares.sum()


def test_a_domain_joins_later(dense, digits, pixels):
    """From the span of β nothing is lost; from outside, what lies outside."""
    family = compress_family(dense, "joint", rank_rule("uniform"), domains=["digits", "faces"])
    assert family["seven"].spec.adapter.kind == "parallel"
    member, error = join(family, dense["seven"])
    family.add("joined", member)
    alphas, found = alphas_of(dense)["seven"], products(family, "joined")
    lost = sum(np.square(alphas[conv] - found[conv]).sum() for conv in alphas)
    whole = sum(np.square(alpha).sum() for alpha in alphas.values())
    assert error == pytest.approx(np.sqrt(lost / whole), rel=1e-4)
    assert 0.05 < error < 1
    full = compress_family(dense, "joint", rank_rule("uniform", share=1.0), domains=["digits"])
    member, error = join(full, dense["seven"])
    assert error < 1e-5
    full.add("seven", member)
    np.testing.assert_allclose(
        logits(full, "seven", pixels), logits(dense, "seven", pixels), atol=1e-5
    )


def test_compressed_families_are_saved_and_kept_apart(dense, pixels, tmp_path):
    family = compress_family(dense, "joint", rank_rule("budget"))
    family.save(tmp_path)
    found = Family.load(tmp_path)
    assert found.shared.basis.ranks == family.shared.basis.ranks
    assert found.fingerprint == dense.fingerprint  # of the filters, which did not change
    for name in family:
        np.testing.assert_array_equal(
            found.predict(pixels, domain=name), family.predict(pixels, domain=name)
        )
    found.add("dense", dense["digits"])  # stands on the filters alone
    with pytest.raises(ValueError, match="no shared β"):
        dense.add("small", family["digits"])
    other = compress_family(dense, "joint", rank_rule("budget"), domains=["digits", "faces"])
    with pytest.raises(ValueError, match=r"shared β of other options|other shared weights"):
        other.add("small", family["digits"])


def test_what_cannot_be_compressed_is_named(dense):
    with pytest.raises(ValueError, match="no domain with parallel adapters"):
        compress_family(Family(dense.shared, [dense["plain"]]), "joint", rank_rule("uniform"))
    with pytest.raises(ValueError, match=r"found .*none.*Without adapters there is nothing"):
        compress_family(dense, "joint", rank_rule("uniform"), domains=["plain"])
    with pytest.raises(ValueError, match="compression 'svd'"):
        compress_family(dense, "svd", rank_rule("uniform"))
    small = compress_family(dense, "joint", rank_rule("uniform"))
    with pytest.raises(ValueError, match="already"):
        compress_family(small, "joint", rank_rule("uniform"))
    with pytest.raises(ValueError, match="shares no β"):
        join(dense, dense["digits"])
    for arguments in (
        {"how": "best"},
        {"how": "uniform", "share": 0},
        {"how": "energy", "energy": 2},
    ):
        with pytest.raises(ValueError, match="found"):
            rank_rule(**arguments)({"stem": Spectrum(np.ones(3), 1)})
    with pytest.raises(ValueError, match="at least 1"):
        rank_rule("budget", budget=0 + 1)({"stem": Spectrum(np.ones(3), 100)})
