"""Moments of a domain's images, and factors that lose what matters least by them."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.optimize
from families import Tiny, empty_family, member_of, two_domains, whole
from flax import linen as nn
from own_networks import ConvNeXt, ResNet

import radapt_jax as rj
from radapt_jax.adapters.base import by_convolution
from radapt_jax.compress.moments import Moments, moments
from radapt_jax.compress.svd import joint_svd
from radapt_jax.compress.weighted import Problem, alternating, closed_form, gradients_of, inputs_of
from radapt_jax.data import augment, batches
from radapt_jax.data.pixels import HostPixels
from radapt_jax.utils import trees

KNOWN: dict[str, Moments] = {}
FACTS = {"size": 16, "resize": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}
FEW = {"count": 64, "batch_size": 64}


@pytest.fixture(scope="module")
def dense(digits, faces):
    return two_domains(digits, faces, 1 / 16)


@pytest.fixture(scope="module")
def found(dense, digits, faces):
    images = {"digits": digits.splits["train"], "faces": faces.splits["train"]}
    return {name: moments(dense, name, split, **FEW) for name, split in images.items()}


def test_moments_of_two_convolutions(digits):
    """S from what the network computes on the way, G by hand from the head backwards."""
    params = rj.initial_variables(rj.ModelSpec(Tiny()), 2, seed=0)["params"]
    family = rj.Family(rj.Shared(params, Tiny()))
    family.add("it", member_of(digits, "parallel", 1, made=lambda _: Tiny()))
    taken = moments(family, "it", digits.splits["train"], own_labels=True, **FEW)
    batch = batches.train_batch(HostPixels(digits.splits["train"], 16), digits.domain, 64, 0, 0, 1)
    seen = {key: it[0] for key, it in batch.items()}
    images = augment.network_input(seen, digits.domain.mean, digits.domain.std)
    variables = family.variables("it")
    model = family.model("it")
    logits, mid = model.apply(variables, images, train=False, capture_intermediates=True)
    one, y = (
        np.asarray(mid["intermediates"][name]["__call__"][0], np.float64)
        for name in ("one_norm", "two")
    )
    read = np.maximum(one, 0)[:, ::2, ::2]  # the centre tap of stride 2
    for conv, x in (("one", np.asarray(images, np.float64)), ("two", read)):
        expected = np.einsum("bhwc,bhwe->ce", x, x) / (x.shape[0] * x.shape[1] * x.shape[2])
        np.testing.assert_allclose(taken.inputs[conv], expected, rtol=1e-4)
    norm, stats = variables["adapters"]["two_norm"], variables["batch_stats"]["two_norm"]
    slope = np.asarray(norm["scale"]) / np.sqrt(np.asarray(stats["var"]) + 1e-5)
    z = (y - np.asarray(stats["mean"])) * slope + np.asarray(norm["bias"])
    likely = np.exp(logits - logits.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    at_head = (likely - np.eye(10)[seen["label"]]) @ np.asarray(
        variables["adapters"]["head"]["kernel"]
    ).T
    g = at_head[:, None, None] / (z.shape[1] * z.shape[2]) * (z > 0) * slope
    expected = np.einsum("bhwd,bhwe->de", g, g) / len(g)
    np.testing.assert_allclose(taken.gradients["two"], expected, rtol=1e-3, atol=1e-9)


def test_labels_are_drawn_from_the_predictions(dense, digits, found):
    """The same seed draws the same labels, another seed others; images decide S alone."""
    images = whole(digits.splits["train"], range(64))
    again = rj.moments_of(dense, "digits", images, seed=1, **FEW)
    once_more = rj.moments_of(dense, "digits", images, seed=1, **FEW)
    own = rj.moments_of(dense, "digits", images, digits.splits["train"].targets[:64], **FEW)
    other = rj.moments_of(dense, "digits", images, seed=2, **FEW)
    for conv, gradient in again.gradients.items():
        np.testing.assert_array_equal(gradient, once_more.gradients[conv])
        np.testing.assert_array_equal(again.inputs[conv], own.inputs[conv])
        assert not np.allclose(gradient, own.gradients[conv], rtol=1e-3)
        assert not np.allclose(gradient, other.gradients[conv], rtol=1e-3)
        assert gradient.shape == found["digits"].gradients[conv].shape


def one_convolution(dense, found, conv):
    domains = {name: rj.compress.which.kernels(dense[name]) for name in dense}
    return (
        {name: {conv: own[conv]} for name, own in domains.items()},
        {
            name: Moments({conv: it.inputs[conv]}, {conv: it.gradients[conv]})
            for name, it in found.items()
        },
    )


def objective(domains, by, conv, betas, gammas):
    problem = Problem.of(domains, by, conv)
    return problem.lost(betas[conv], np.stack([gammas[name][conv] for name in domains]))


@pytest.mark.parametrize("conv", ["stage2/block1/conv1", "stage1/block2/conv2"])
def test_the_closed_form_is_the_best_there_is(conv, dense, found):
    """With one S for both domains, a general optimiser finds nothing better, from four starts."""
    domains, by = one_convolution(dense, found, conv)
    common = np.mean([inputs_of(it, conv) for it in by.values()], 0)
    by = {name: dataclasses.replace(it, inputs={conv: common}) for name, it in by.items()}
    rank = 2
    best = objective(domains, by, conv, *closed_form(domains, by, {conv: rank}))
    problem = Problem.of(domains, by, conv)
    (_, rows, outputs), start = problem.alphas.shape, rows_and_columns(domains, conv, rank)
    scale = best

    def lost(values):
        beta = values[: rows * rank].reshape(rows, rank)
        gammas = values[rows * rank :].reshape(2, rank, outputs)
        weighed = problem.inputs @ (problem.alphas - beta @ gammas) @ problem.gradients
        slope_beta = -2 * np.einsum("tcd,tkd->ck", weighed, gammas)
        slope_gammas = -2 * np.einsum("ck,tcd->tkd", beta, weighed)
        slope = np.concatenate([slope_beta.ravel(), slope_gammas.ravel()])
        return problem.lost(beta, gammas) / scale, slope / scale

    stream = np.random.default_rng(0)
    found_by_search = []
    for _ in range(4):
        first = start + 0.3 * stream.standard_normal(start.size) * np.abs(start).mean()
        result = scipy.optimize.minimize(
            lost, first, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 10000}
        )
        found_by_search.append(result.fun)
    assert min(found_by_search) > 1 - 1e-4
    assert min(found_by_search) < 1.05  # the search does come near
    plain = objective(domains, by, conv, *joint_svd(domains, {conv: rank}))
    assert plain > 1.01 * best


def rows_and_columns(domains, conv, rank):
    """The plain factors as one vector."""
    betas, gammas = joint_svd(domains, {conv: rank})
    return np.concatenate(
        [betas[conv].ravel(), *(gammas[name][conv].ravel() for name in domains)]
    ).astype(np.float64)


def test_the_alternation_never_rises(dense, found):
    for conv in ("stage1/block2/conv1", "stage3/block1/conv1"):
        domains, by = one_convolution(dense, found, conv)
        rank = 2
        betas, _ = closed_form(domains, by, {conv: rank})
        problem = Problem.of(domains, by, conv)
        beta = np.linalg.qr(betas[conv].astype(np.float64))[0]
        heights = []
        for _ in range(10):
            gammas = problem.gammas(beta)
            heights.append(problem.lost(beta, gammas))
            better = problem.beta(beta, gammas)
            heights.append(problem.lost(better, gammas))
            beta = np.linalg.qr(better)[0]
        assert (np.diff(heights) <= 1e-12 * heights[0]).all()
        assert heights[-1] < heights[0]
        last = objective(domains, by, conv, *alternating(domains, by, {conv: rank}))
        assert last <= heights[-1] * (1 + 1e-4)


@pytest.mark.parametrize("kind", ["joint", "low_rank"])
def test_predictions_change_less_than_by_the_plain_svd(kind, dense, found, digits, faces):
    images = {"digits": digits.splits["test"], "faces": faces.splits["test"]}
    rule = rj.rank_rule("uniform", share=0.5)
    lost = {}
    for fit in ("svd", "whitened", "alternating"):
        by = None if fit == "svd" else found
        small = rj.compress_family(dense, kind, rule, moments=by, fit=fit)
        lost[fit] = 0
        for name, split in images.items():
            pixels = whole(split, range(64))[:, -16:, -16:]
            before, after = (it.predict(pixels, domain=name) for it in (dense, small))
            lost[fit] += (before * np.log(before / after)).sum(1).mean()
    assert lost["whitened"] < 0.8 * lost["svd"]
    assert lost["alternating"] < 0.8 * lost["svd"]
    if kind == "low_rank":
        assert lost["alternating"] == lost["whitened"]


def test_a_domain_joins_by_what_it_reads(dense, found):
    """Its γ is the best for its own S; the plain error of α is larger then."""
    family = rj.compress_family(dense, "joint", rj.rank_rule("uniform"), domains=["digits"])
    plain, error = rj.join(family, dense["faces"])
    member, weighed = rj.join(family, dense["faces"], moments=found["faces"])
    assert error < weighed
    betas = by_convolution(trees.flatten(family.shared.params), "beta")
    alphas = rj.compress.which.kernels(dense["faces"])
    for conv, alpha in alphas.items():
        inputs = inputs_of(found["faces"], conv)
        lost = []
        for it in (member, plain):
            gamma = by_convolution(trees.flatten(it.variables["adapters"]), "gamma")[conv]
            change = alpha - betas[conv] @ gamma
            lost.append(np.einsum("cd,ce,ed->", change, inputs, change))
        assert lost[0] <= lost[1] * (1 + 1e-5) + 1e-9


def test_ranks_by_budget_go_where_they_matter(dense, found):
    """The weighed objective over all layers is lower than with ranks of the plain spectra."""
    rule = rj.rank_rule("budget", budget=2000)
    plain = rj.compress_family(dense, "joint", rule).shared.basis.ranks
    weighed = rj.compress_family(dense, "joint", rule, moments=found, fit="whitened")
    assert weighed.shared.basis.ranks != plain
    alphas = {name: rj.compress.which.kernels(dense[name]) for name in dense}

    def lost(ranks):
        factors = closed_form(alphas, found, ranks)
        return sum(objective(alphas, found, conv, *factors) for conv in ranks)

    assert lost(weighed.shared.basis.ranks) < lost(plain)


def test_what_moments_cannot_do_is_refused(dense, found, digits, faces):
    rule = rj.rank_rule("uniform")
    with pytest.raises(ValueError, match="found fit 'best'; expected one of"):
        rj.compress_family(dense, "joint", rule, fit="best")
    with pytest.raises(ValueError, match=r"expects those of \['digits', 'faces'\]"):
        rj.compress_family(dense, "joint", rule, fit="whitened")
    with pytest.raises(ValueError, match=r"fit 'svd' expects those of \[\]"):
        rj.compress_family(dense, "joint", rule, moments=found, fit="svd")
    with pytest.raises(ValueError, match=r"found moments of \['digits'\]"):
        rj.compress_family(dense, "joint", rule, moments={"digits": found["digits"]})
    family = empty_family(1 / 16)
    family.add("it", member_of(digits, "series", 1, width=1 / 16))
    with pytest.raises(ValueError, match="found adapter 'series'; expected one whose"):
        moments(family, "it", digits.splits["train"], **FEW)
    with pytest.raises(ValueError, match="labels"):
        rj.moments_of(dense, "digits", whole(digits.splits["train"], range(2)), [3, 10], **FEW)


def test_dead_channels_do_no_harm(dense, found):
    conv = "stage1/block1/conv1"
    domains, by = one_convolution(dense, found, conv)
    zero = {
        name: Moments({conv: 0 * it.inputs[conv]}, {conv: 0 * it.gradients[conv]})
        for name, it in by.items()
    }
    for moments_of in (zero, {**by, "faces": zero["faces"]}):
        for fit in (closed_form, alternating):
            betas, gammas = fit(domains, moments_of, {conv: 2})
            assert np.isfinite(betas[conv]).all()
            assert np.isfinite(gammas["faces"][conv]).all()
            assert gradients_of(moments_of["faces"], conv).shape == (4, 4)


@pytest.mark.parametrize("wrap", [None, nn.remat])
def test_moments_of_a_network_of_ones_own(wrap, digits):
    """Also where blocks are computed twice, which changes nothing."""
    module = ResNet(3, wrap=wrap)
    weights = module.init(jax.random.key(0), np.zeros((1, 16, 16, 3)), train=False)
    family = rj.family_of_network(rj.adapt(module, size=16), weights, "mine", **FACTS)
    split = digits.splits["train"]
    images, labels = whole(split, range(64)), split.targets[:64]
    domain = rj.DomainOptions(**FACTS, flip=False)
    options = rj.TrainOptions(steps=2, batch_size=16, evals=1)
    adapter = rj.Parallel(init="he_normal")
    rj.fit(family, "d", images, labels, adapter=adapter, domain=domain, options=options)
    taken = rj.moments_of(family, "d", images, count=64, batch_size=32)
    assert (
        taken.inputs.keys()
        == by_convolution(trees.flatten(family.variables("d")["adapters"]), "kernel").keys()
    )
    for conv, inputs in taken.inputs.items():
        alpha = by_convolution(trees.flatten(family.variables("d")["adapters"]), "kernel")[conv]
        assert inputs.shape == (len(alpha), len(alpha))
        assert taken.gradients[conv].shape == (alpha.shape[1], alpha.shape[1])
        assert np.trace(inputs) > 0
        assert np.linalg.eigvalsh(taken.gradients[conv]).min() > -1e-6
    known = KNOWN.setdefault("moments", taken)
    for conv in known.inputs:
        np.testing.assert_allclose(taken.inputs[conv], known.inputs[conv], rtol=1e-4)
        np.testing.assert_allclose(taken.gradients[conv], known.gradients[conv], rtol=1e-2)


def test_groups_have_the_mean_of_their_moments(digits):
    """A depthwise convolution reads one channel a group."""
    module = ConvNeXt(3)
    weights = module.init(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    backbone = rj.adapt(module, ["depthwise"], size=16)
    family = rj.family_of_network(backbone, weights, "mine", **FACTS)
    split = digits.splits["train"]
    images, labels = whole(split, range(32)), split.targets[:32]
    domain = rj.DomainOptions(**FACTS, flip=False)
    options = rj.TrainOptions(steps=1, batch_size=16, evals=1)
    rj.fit(family, "d", images, labels, adapter=rj.Parallel(), domain=domain, options=options)
    taken = rj.moments_of(family, "d", images, count=32, batch_size=32)
    assert taken.inputs["depthwise"].shape == (1, 1)
    assert taken.gradients["depthwise"].shape == (8, 8)
    small = rj.compress_family(family, "low_rank", rj.rank_rule("uniform"), moments={"d": taken})
    np.testing.assert_allclose(
        small.predict(images, domain="d"), family.predict(images, domain="d"), atol=1e-5
    )


class InGroups(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(8, (3, 3))(x)
        x = nn.Conv(8, (3, 3), feature_group_count=2)(x)
        return nn.Dense(3)(x.mean((1, 2)))


def test_groups_of_several_channels_are_refused(digits):
    """One mean moment would not be that of either group."""
    spec = rj.ModelSpec(rj.adapt(InGroups(), size=16), rj.Parallel())
    family = rj.Family(rj.Shared(rj.initial_variables(spec, 1, 0)["params"], spec.backbone))
    family.add("it", member_of(digits, "parallel", 1, made=lambda _: spec.backbone))
    with pytest.raises(ValueError, match=r"in groups of channels, such as Conv_1; expected one"):
        moments(family, "it", digits.splits["train"], **FEW)
