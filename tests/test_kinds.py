"""Adapter kinds one by one: equations and gradients in plain NumPy, starts, ranks, decays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import network

import radapt_jax as rj
from radapt_jax.adapters import KINDS, AdaptedConv, make_options
from radapt_jax.adapters.base import Runtime, Site, of_adapter
from radapt_jax.adapters.random_basis import drawn
from radapt_jax.models import ResNet50
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.norm import NormRule
from radapt_jax.train import optim
from radapt_jax.utils import trees

INPUTS, OUTPUTS, SIZE = 3, 4, 3
RANK = 2
EPSILON = 1e-3
OPTIONS = {  # what is not at its default
    "low_rank": {"ranks": RANK},
    "joint": {"ranks": RANK},
    "modulation_low_rank": {"ranks": RANK},
    "modulation_joint": {"ranks": RANK},
    "conv_lora": {"ranks": RANK, "scale": 0.5},
    "conv_lora_joint": {"ranks": RANK, "scale": 0.5},
    "random_basis": {"ranks": RANK, "seed": 7},
    "vera": {"ranks": RANK, "seed": 7},
    "mask": {"threshold": 0.5},
    "affine_mask": {"threshold": 0.5},
    "conv_adapter": {"reduction": 2},
}


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def convolved(x, kernel, stride=1):
    """A convolution padded by one pixel, written as loops over the filter's taps."""
    side = -(-x.shape[1] // stride)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((len(x), side, side, kernel.shape[-1]))
    for row in range(SIZE):
        for column in range(SIZE):
            rows, columns = (slice(at, at + stride * side, stride) for at in (row, column))
            y += padded[:, rows, columns] @ kernel[row, column]
    return y


def beside(alpha):
    """The filter that α is at the centre tap."""
    return np.pad(alpha[None, None], ((1, 1), (1, 1), (0, 0), (0, 0)))


def random_of(name, shape):
    return drawn(shape, 7, "", name).astype(np.float64)


def vera(inner, outer):
    beta, gamma = random_of("beta", (INPUTS, RANK)), random_of("gamma", (RANK, OUTPUTS))
    return beta @ np.diag(inner) @ gamma @ np.diag(outer)


# The filter of the adapted convolution, from that of the shared one, W, and the variables. Of masks
# the scores are the bits themselves.
FILTERS = {
    "none": lambda W: W,
    "parallel": lambda W, kernel: W + beside(kernel),
    "low_rank": lambda W, beta, gamma: W + beside(beta @ gamma),
    "modulation": lambda W, kernel: W * (1 + kernel),
    "modulation_low_rank": lambda W, beta, gamma: W * (1 + beta @ gamma),
    "controller": lambda W, kernel, bias: W @ (np.eye(OUTPUTS) + kernel),
    "mask": lambda W, scores: scores * W,
    "affine_mask": lambda W, scores, scales: (
        scales[0] + scales[1] * W + scales[2] * scores + scales[3] * W * scores
    ),
    "conv_lora": lambda W, beta, gamma: W + 0.5 * (beta @ gamma).reshape(W.shape),
    "random_basis": lambda W, gamma: W + beside(random_of("beta", (INPUTS, RANK)) @ gamma),
    "vera": lambda W, inner, outer: W + beside(vera(inner, outer)),
}
FILTERS["joint"] = FILTERS["low_rank"]
FILTERS["modulation_joint"] = FILTERS["modulation_low_rank"]
FILTERS["conv_lora_joint"] = FILTERS["conv_lora"]


def series(x, W, kernel, bias, scale, shift):
    """In training: the norm inside takes the statistics of the batch."""
    u = convolved(x, W)
    mean, var = u.mean((0, 1, 2)), u.var((0, 1, 2))
    return u + ((u - mean) / np.sqrt(var + EPSILON) * scale + shift) @ kernel + bias


def conv_adapter(x, W, down, down_bias, up, up_bias, scale):
    """The bottleneck has one channel, which reads all inputs: 1 is the most that divides 3."""
    inside = np.maximum(convolved(x, down) + down_bias, 0)
    return convolved(x, W) + (inside @ up + up_bias) * scale


def output(kind, x, W, own):
    """What an adapted convolution computes in training, in plain NumPy."""
    if kind == "series":
        norm = {"scale": own["norm/scale"], "shift": own["norm/bias"]}
        return series(x, W, own["kernel"], own["bias"], **norm)
    if kind == "conv_adapter":
        return conv_adapter(x, W, **own)
    y = convolved(x, FILTERS[kind](W, **own))
    return y + own["bias"] if kind == "controller" else y


def layer(kind):
    chosen = {"bias": True} if kind == "series" else OPTIONS.get(kind, {})
    return AdaptedConv(
        OUTPUTS,
        adapter=make_options(kind, **chosen),
        norm=NormRule(EPSILON),
        runtime=Runtime(jnp.float64),
    )


def problem(kind):
    """A layer with everything at random: module, images, filter, variables by name, the rest."""
    module, stream = layer(kind), np.random.default_rng(3)
    x, weights = (stream.normal(size=shape) for shape in ((2, 6, 6, INPUTS), (3, 3, 3, OUTPUTS)))
    found = trees.flatten(module.init(jax.random.key(0), jnp.asarray(x), train=False))
    leaves = {path: stream.normal(size=leaf.shape) for path, leaf in found.items()}
    leaves |= {path: leaf for path, leaf in found.items() if path.startswith("batch_stats")}
    leaves["params/kernel"] = weights
    for path, leaf in leaves.items():
        if path.endswith("scores"):
            leaves[path] = (leaf > 0).astype(float)
    return module, x, weights, leaves


def own_of(leaves):
    inside = {}
    for collection in ("params", "adapters"):
        inside |= of_adapter(leaves, collection)
    return inside


@pytest.mark.parametrize("kind", KINDS)
def test_the_equation(kind):
    module, x, weights, leaves = problem(kind)
    expected = output(kind, x, weights, own_of(leaves))
    assert kind == "none" or np.abs(expected - convolved(x, weights)).max() > 0.1
    y, _ = module.apply(trees.unflatten(leaves), x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, atol=1e-6 if "random" in kind else 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind):
    """Of every variable and of the images. Scores have the gradient of their bits."""
    module, x, weights, leaves = problem(kind)
    mixing = np.random.default_rng(5).normal(size=(2, 6, 6, OUTPUTS))

    def loss(x, own):
        return float((mixing * np.sin(output(kind, x, weights, own))).sum())

    def traced(x, leaves):
        variables = trees.unflatten(leaves)
        y, _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return (mixing * jnp.sin(y)).sum()

    of_x, of_leaves = jax.grad(traced, (0, 1))(x, leaves)
    own, step = own_of(leaves), 1e-6
    gradients = own_of(of_leaves)
    assert own.keys() == set(KINDS[kind].leaves)

    def difference(name, at):
        around = []
        for sign in (1, -1):
            moved = {key: np.array(it) for key, it in {**own, "x": x}.items()}
            moved[name][at] += sign * step
            around.append(loss(moved.pop("x"), moved))
        return (around[0] - around[1]) / (2 * step)

    for name, gradient in {**gradients, "x": of_x}.items():
        shape, stream = gradient.shape, np.random.default_rng(6)
        for _ in range(4):
            at = tuple(int(stream.integers(side)) for side in shape)
            found = difference(name, at)
            assert gradient[at] == pytest.approx(found, rel=1e-4, abs=1e-6), (name, at)


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_backbone(kind):
    spec = network(kind, width=1 / 16)
    start = rj.initial_variables(spec, 3, seed=0)
    leaves = trees.flatten(start)
    conv = "stage2/block1/conv1"
    module = AdaptedConv(
        *(leaves[f"params/{conv}/kernel"].shape[-1], 3, Geometry(2)), adapter=spec.adapter
    )
    here = {
        path.replace(f"{conv}/", ""): jnp.asarray(leaf)
        for path, leaf in leaves.items()
        if f"/{conv}/" in path
    }
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, here["params/kernel"].shape[2]))
    plain = AdaptedConv(module.features, 3, Geometry(2))
    expected = plain.apply({"params": {"kernel": here["params/kernel"]}}, x, train=False)
    found = module.apply(trees.unflatten(here), x, train=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


RANKED = [kind for kind in KINDS if "ranks" in KINDS[kind].Options.checks]
SITE = Site("conv", 3, 8, 16)


@pytest.mark.parametrize("kind", RANKED)
def test_ranks_by_number_share_and_convolution(kind):
    made = KINDS[kind]

    def rank(ranks, site=SITE):
        return made.rank(make_options(kind, ranks=ranks), site)

    assert (rank(3), rank(0.5), rank(1.0), rank({"conv": 5})) == (3, 4, 8, 5)
    assert rank(1000) == made.highest_rank(SITE), "a number is limited to what there can be"
    assert make_options(kind, ranks={"other": 1}).ranks == {"other": 1}
    assert not made.serves(make_options(kind, ranks={"other": 1}), "conv")
    one, two = (made.parameters(make_options(kind, ranks=it), SITE) for it in (1, 2))
    per_rank = {"conv_lora": 9 * 8 + 16, "joint": 16, "modulation_joint": 16}
    per_rank |= {"conv_lora_joint": 16, "random_basis": 16, "vera": 1}
    assert two - one == per_rank.get(kind, 8 + 16)


@pytest.mark.parametrize("found", [0, -1, 1.5, 0.0, True, "half", {"conv": 0.5}, {"conv": 0}])
def test_ranks_that_cannot_be(found):
    with pytest.raises(ValueError, match=r"low_rank adapters: found ranks .*a whole number from 1"):
        rj.LowRank(ranks=found)


@pytest.mark.parametrize("kind", ["low_rank", "conv_lora", "vera", "modulation_low_rank"])
def test_a_budget_is_a_common_share_of_the_full_rank(kind):
    budget = 9_000
    spec = network(kind, width=0.125, budget=budget)
    assert spec.adapter.budget == 0
    assert spec.adapter.ranks.keys() == {site.conv for site in spec.sites()}
    counted = sum(spec.kind.parameters(spec.adapter, site) for site in spec.sites())
    own = trees.flatten(spec.abstract(2)["adapters"])
    assert counted == sum(int(np.prod(it.shape)) for at, it in own.items() if "/adapter/" in at)
    assert 0.9 * budget < counted <= budget or all(
        rank == spec.kind.full_rank(site)
        for site, rank in zip(spec.sites(), spec.adapter.ranks.values(), strict=True)
    )
    assert rj.ModelSpec.from_json(spec.to_json()) == spec
    with pytest.raises(
        ValueError, match=r"a budget of 10 parameters; expected at least [\d,]+, ra"
    ):
        network(kind, width=0.125, budget=10)


def test_decay_by_variable():
    """Scores are not decayed, other variables are; options say otherwise, or freeze."""
    decay = {"filters": None, "adapters": 1e-2, "norms": 1e-3, "head": 0.0}

    def rates(adapter):
        spec = rj.ModelSpec(rj.ResNet26(1 / 16), adapter)
        start = jax.tree.map(jnp.asarray, rj.initial_variables(spec, 3, seed=0))
        weights = {name: start[name] for name in ("params", "adapters")}
        labels = optim.labels(weights, decay, spec.kind, adapter.decay)
        optimizer = optim.make_optimizer(labels, optim.decays_of(decay, adapter.decay), 1.0)
        zeros = jax.tree.map(jnp.zeros_like, weights)
        ones = jax.tree.map(jnp.ones_like, weights)
        updates, _ = optimizer.update(zeros, optimizer.init(weights), ones)
        return {
            name: float(-leaf.ravel()[0])
            for name, leaf in of_adapter(trees.flatten(updates), "adapters/stem").items()
        }

    def close(found, expected):
        assert found == pytest.approx(expected, rel=1e-5)

    close(rates(rj.AffineMask()), {"scores": 0, "scales": 0})
    close(rates(rj.AffineMask(decay={"scores": 0.5})), {"scores": 0.5, "scales": 0})
    close(rates(rj.LowRank(decay={"gamma": 0.3})), {"beta": 1e-2, "gamma": 0.3})
    close(rates(rj.LowRank(decay={"beta": None})), {"beta": 0, "gamma": 1e-2})
    close(rates(rj.Controller()), {"kernel": 1e-2, "bias": 0})
    with pytest.raises(ValueError, match=r"found decay of \['alpha'\]; expected some of \['beta'"):
        rj.ModelSpec(rj.ResNet26(1 / 16), rj.LowRank(decay={"alpha": 0.1}))
    with pytest.raises(ValueError, match=r"joint adapters: found decay .* none for \['beta'\]"):
        rj.ModelSpec(rj.ResNet26(1 / 16), rj.Joint(decay={"beta": 5e-4, "gamma": 5e-4}))
    rj.ModelSpec(rj.ResNet26(1 / 16), rj.Joint(decay={"beta": None, "gamma": 5e-4}))
    with pytest.raises(ValueError, match="low_rank adapters: found decay"):
        rj.LowRank(decay={"beta": -1.0})


def test_a_frozen_variable_stays():
    adapter = rj.LowRank(decay={"beta": None})
    spec = rj.ModelSpec(rj.ResNet26(1 / 16), adapter)
    start = rj.initial_variables(spec, 3, seed=0)
    weights = {name: start[name] for name in ("params", "adapters")}
    decay = {"filters": None, "adapters": 1e-2, "norms": 1e-3, "head": 0.0}
    labels = trees.flatten(optim.labels(weights, decay, spec.kind, adapter.decay))
    assert labels["adapters/stem/adapter/beta"] == optim.FROZEN
    assert labels["adapters/stem/adapter/gamma"] == "adapters"


def test_random_matrices_are_of_the_seed_and_the_convolution():
    def basis(seed, conv="stage1/block1/conv1"):
        return KINDS["random_basis"].basis(rj.RandomBasis(seed=seed), Site(conv, 3, 8, 16))

    np.testing.assert_array_equal(basis(1), basis(1))
    assert not np.array_equal(basis(1), basis(2))
    assert not np.array_equal(basis(1), basis(1, "stem"))
    assert basis(1).shape == (8, 4)


def test_options_that_masks_cannot_have():
    for wrong in ({"threshold": 1.0}, {"threshold": -0.1}, {"scores": "high"}):
        with pytest.raises(ValueError, match="mask adapters: found"):
            rj.Mask(**wrong)


DROPPED = [kind for kind in KINDS if "dropout" in KINDS[kind].Options.checks]


@pytest.mark.parametrize("kind", DROPPED)
def test_dropout_of_a_config_is_a_list(kind):
    """Options are hashed: a network is compiled once for each."""
    options = make_options(kind, dropout=[0, 0.5])
    assert options.dropout == (0.0, 0.5)
    assert hash(options) == hash(make_options(kind, dropout=(0.0, 0.5)))
    assert options.served() == make_options(kind)


def test_ranks_of_convolutions_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"ranks of \['stage1\.block1\.conv1'\], which are no"):
        rj.ModelSpec(rj.ResNet26(1 / 16), rj.LowRank(ranks={"stage1.block1.conv1": 4}))


def test_ranks_where_no_adapter_is_are_refused():
    """A ResNet-50 has adapters on its 3x3 convolutions: none would be left, and nothing trained."""
    ranks = {"stage1/block1/conv1": 8}
    with pytest.raises(ValueError, match=r"ranks of \['stage1/block1/conv1'\], which carry no"):
        rj.ModelSpec(ResNet50(), rj.LowRank(ranks=ranks))
    everywhere = rj.Placement(convs=ResNet50().convs)
    sites = rj.ModelSpec(ResNet50(), rj.LowRank(ranks=ranks), everywhere).sites()
    assert [site.conv for site in sites] == list(ranks)
    late = rj.Placement(stages=("stage4",))
    with pytest.raises(ValueError, match="carry no adapter here"):
        rj.ModelSpec(ResNet50(), rj.LowRank(ranks={"stage1/block1/conv2": 8}), late)
