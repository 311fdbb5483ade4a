"""ResNet-26: parameter counts, options, and what each adapter kind promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import network, whole

from radapt_jax import LowRank, ModelSpec, Parallel, ResNet26, initial_variables, resnet26
from radapt_jax.adapters import make_options
from radapt_jax.train import optim
from radapt_jax.utils import trees

KINDS = ("none", "series", "parallel")


def counts(spec, classes=10):
    """Parameters by label."""
    weights = {key: spec.abstract(classes)[key] for key in ("params", "adapters")}
    found, leaves = dict.fromkeys(optim.LABELS, 0), trees.flatten(weights)
    for path, leaf in leaves.items():
        found[optim.label(path, spec.kind, leaves)] += int(np.prod(leaf.shape))
    return found


@pytest.fixture(scope="module")
def images(faces):
    pixels = whole(faces.splits["train"], range(4))
    return jnp.asarray(pixels[:, :16, :16], jnp.float32) / 255 - 0.5


@pytest.mark.parametrize(
    ("kind", "adapters", "norms", "layers"),
    [("parallel", 645_216, 7_744, 26), ("series", 689_152, 14_976, 51), ("none", 0, 7_744, 26)],
)
def test_parameter_counts_of_the_paper(kind, adapters, norms, layers):
    spec = network(kind, width=1.0)
    expected = {"filters": 5_806_944, "adapters": adapters, "norms": norms, "head": 2_570}
    assert counts(spec) == expected
    paths = trees.flatten(spec.abstract(10)["adapters"])
    assert sum(path.endswith("scale") for path in paths) == layers
    if kind == "none":
        assert sum(counts(spec).values()) == 5_817_258


@pytest.mark.parametrize("width", [0.125, 0.5, 2.5])
def test_width_scales_filters(width):
    stem = 27 * 32 * width
    rest = (5_806_944 - 27 * 32) * width**2
    assert counts(network(width=width))["filters"] == stem + rest


def test_which_layers_carry_adapters():
    def adapted(**options):
        paths = trees.flatten(network("parallel", 1.0, **options).abstract(10)["adapters"])
        return {path.removesuffix("/adapter/kernel") for path in paths if "/adapter/" in path}

    everything = adapted()
    assert len(everything) == 25
    assert "stem" in everything
    early, mid, late = (adapted(stages=(stage,)) for stage in ("early", "mid", "late"))
    assert early | mid | late == everything
    assert (len(early), len(mid), len(late)) == (9, 8, 8)
    assert "stem" in early
    half = adapted(convs=("second",))
    assert half == {"stem"} | {path for path in everything if path.endswith("conv2")}


@pytest.mark.parametrize("kind", ["series", "parallel"])
def test_zero_adapter_is_the_backbone(kind, images):
    plain = initial_variables(network(width=0.125), 5, seed=3)
    adapted = initial_variables(network(kind, width=0.125), 5, seed=3)
    expected = resnet26(5, "none", width=0.125).apply(plain, images, train=False)
    found = resnet26(5, kind, width=0.125).apply(adapted, images, train=False)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_start_has_the_distribution_of_init(kind):
    """`initial_variables` restates the initialisers of the modules; they must not drift apart."""
    spec = network(kind, width=0.25, init="he_normal")
    example = jnp.zeros((1, 8, 8, 3))
    init = jax.jit(lambda key: spec.build(7).init(key, example, train=False))
    theirs = trees.flatten(init(jax.random.key(0, impl="rbg")))  # quick to compile
    ours = trees.flatten(initial_variables(spec, 7, seed=0))
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs)
    for path, leaf in theirs.items():
        if leaf.size < 1000:
            continue
        error = 5 * float(jnp.std(leaf)) / np.sqrt(leaf.size)
        assert abs(ours[path].mean() - float(leaf.mean())) < 2 * error, path
        assert ours[path].std() == pytest.approx(float(leaf.std()), rel=0.1), path
        assert np.abs(ours[path]).max() == pytest.approx(float(jnp.abs(leaf).max()), rel=0.5), path
    for path in ("batch_stats/norm/mean", "batch_stats/norm/var", "adapters/norm/scale"):
        np.testing.assert_array_equal(ours[path], theirs[path])


def test_initial_filters_do_not_depend_on_domain_or_adapter():
    first = initial_variables(network(width=0.125), 5, seed=0)["params"]
    second = initial_variables(network("series", width=0.125), 9, seed=0)["params"]
    chex.assert_trees_all_equal(first, second)
    other = initial_variables(network(width=0.125), 5, seed=1)["params"]
    assert trees.fingerprint(first) != trees.fingerprint(other)


def test_dropout_reaches_only_what_adapters_add(images):
    """With α = 0 dropped channels change nothing; with α at random they do, by position."""
    key = {"dropout": jax.random.key(1)}

    def logits(dropout, init, train=True):
        model = resnet26(3, Parallel(dropout=dropout, init=init), width=0.125)
        spec = network("parallel", width=0.125, init=init)
        variables = initial_variables(spec, 3, seed=0)
        out = model.apply(variables, images, train=train, rngs=key, mutable=["batch_stats"])
        return np.asarray(out[0])

    np.testing.assert_array_equal(logits((0.5, 0.5), "zeros"), logits((0, 0), "zeros"))
    plain = logits((0, 0), "he_normal")
    first, second = logits((0.5, 0), "he_normal"), logits((0, 0.5), "he_normal")
    assert np.abs(first - plain).max() > 1e-3
    assert np.abs(second - plain).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(
        logits((0.5, 0.5), "he_normal", train=False), logits((0, 0), "he_normal", train=False)
    )


def test_bfloat16_computes_close_to_float32(images):
    variables = initial_variables(network("parallel", width=0.125), 5, seed=0)
    exact = resnet26(5, width=0.125).apply(variables, images, train=False)
    half = resnet26(5, width=0.125, dtype=jnp.bfloat16).apply(variables, images, train=False)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, exact, atol=0.05 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": ("paralel", {})}, "paralel"),
        ({"stages": ("erly",)}, "erly"),
        ({"convs": ("third",)}, "third"),
        ({"adapter": ("parallel", {"init": "ones"})}, "ones"),
        ({"width": 0.3}, "multiple of 1/32"),
        ({"width": 0.0}, "width 0.0"),
        ({"adapter": ("parallel", {"dropout": (1.0, 0.0)})}, "dropout"),
        ({"adapter": ("series", {"dropout": (0.5, 0.0)})}, "series adapters; expected some of"),
        ({"adapter": ("none", {"dropout": (0.0, 0.1)})}, "none adapters; expected some of"),
        ({"sync_norm": True}, "axis_name"),
    ],
)
def test_bad_options_are_named(options, message):
    kind, chosen = options.get("adapter", ("parallel", {}))
    others = {name: it for name, it in options.items() if name != "adapter"}
    with pytest.raises(ValueError, match=message):
        resnet26(10, make_options(kind, **chosen), **others)


@pytest.mark.parametrize("shape", [(1, 20, 16, 3), (1, 16, 16, 1), (16, 16, 3)])
def test_bad_images_are_refused(shape):
    model = resnet26(10, width=0.125)
    with pytest.raises(ValueError, match="multiples of 8"):
        jax.eval_shape(
            lambda images: model.init(jax.random.key(0), images, train=False), jnp.zeros(shape)
        )


def test_variables_of_another_network_are_refused(images):
    variables = initial_variables(network("parallel", width=0.125), 5, seed=0)
    with pytest.raises(ValueError, match=r"head/kernel: found shape \(32, 5\), expected \(32, 6\)"):
        resnet26(6, width=0.125).apply(variables, images, train=False)


def test_a_budget_holds_without_a_family():
    model = resnet26(10, LowRank(budget=20_000), width=0.125)
    spec = ModelSpec(ResNet26(0.125), LowRank(budget=20_000))
    assert model.adapter.ranks == spec.adapter.ranks != 0.5
    with pytest.raises(ValueError, match="found num_classes 0"):
        resnet26(0)
