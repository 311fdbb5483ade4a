"""ResNet28-RAM: counts, starts, the network in NumPy, folding, and its recipe."""

import functools
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

import radapt_jax as rj
from radapt_jax.experiment.config import read
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.models import ResNet28RAM, folded_spec
from radapt_jax.models.fold import fold
from radapt_jax.nn.starts import STARTS
from radapt_jax.train import optim
from radapt_jax.utils import trees

VARIANTS = ("a", "b")


def recipe(variant):
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module("configs.ram28").get_config(variant)
    sys.path.remove(str(ROOT))
    return config


def network(variant, width=1.0, blocks=4, **options):
    backbone = ResNet28RAM(width, variant=variant, blocks=blocks, **options)
    return rj.ModelSpec(backbone, rj.Series(init="keras_he_normal", bias=variant == "a"))


def shaken(spec, classes, seed=0):
    """Variables whose norms, biases and statistics are at random too."""
    leaves = trees.flatten(rj.initial_variables(spec, classes, seed))
    stream = np.random.default_rng(seed)
    for path, leaf in leaves.items():
        if leaf.ndim == 1:
            leaves[path] = (leaf + stream.uniform(0.1, 0.5, leaf.shape)).astype(np.float32)
    return trees.unflatten(leaves)


@functools.partial(jax.jit, static_argnums=0)
def evaluated(model, variables, images):
    return model.apply(variables, images, train=False)


def decay_of(config):
    return dict(config.optim.decay.to_dict())


@pytest.mark.parametrize(
    ("variant", "classes", "total", "domain", "statistics"),
    [("a", 10, 6_579_306, 753_770, 14_976), ("b", 2, 6_558_770, 704_194, 15_296)],
)
def test_counts(variant, classes, total, domain, statistics):
    spec = network(variant)
    variables = spec.abstract(classes)
    found = {name: trees.count(tree) for name, tree in variables.items()}
    assert (found["adapters"], found["batch_stats"]) == (domain, statistics)
    assert sum(found.values()) == total
    own = trees.flatten(variables["adapters"])
    shortcuts = {path: leaf for path, leaf in own.items() if "/shortcut/" in path}
    assert trees.count(shortcuts) == (43_456 if variant == "a" else 0)
    adapters = {path: leaf for path, leaf in own.items() if "/adapter/" in path}
    filters = trees.flatten(variables["params"])
    assert trees.count(adapters) == sum(
        spec.kind.parameters(spec.adapter, site) for site in spec.sites()
    )
    if variant == "b":
        kernels = {path: it for path, it in adapters.items() if path.endswith("/kernel")}
        assert trees.count(kernels) == 688_384
    convolutions = [
        path for path in (*filters, *shortcuts) if path.endswith("kernel") and "adapter" not in path
    ]
    assert len(convolutions) == 28
    assert rj.models.make_backbone(**spec.backbone.to_json()) == spec.backbone


def test_options_outside_their_ranges_are_named():
    for options, message in (
        ({"variant": "c"}, "found variant 'c'; expected"),
        ({"blocks": 0}, "found blocks 0"),
        ({"standardise": 1}, "found standardise 1"),
        ({"width": 0.3}, "found width 0.3"),
    ):
        with pytest.raises(ValueError, match=message):
            ResNet28RAM(**options)


@pytest.mark.parametrize("name", sorted(STARTS))
def test_both_ways_to_draw_a_start_draw_the_same(name):
    shape, start = (3, 3, 40, 50), STARTS[name]
    drawn = start.draw(np.random.default_rng(0), shape)
    theirs = np.asarray(start.initializer(jax.random.key(0), shape, jnp.float32))
    assert drawn.shape == theirs.shape
    if name == "head":  # of matrices
        shape = (40, 50)
        drawn = start.draw(np.random.default_rng(0), shape)
        theirs = np.asarray(start.initializer(jax.random.key(0), shape, jnp.float32))
    spread = theirs.std()
    np.testing.assert_allclose(drawn.std(), spread, rtol=0.05)
    assert abs(drawn.mean() - theirs.mean()) < 0.1 * spread + 1e-9
    if "normal" not in name or "keras" in name:  # bounded
        np.testing.assert_allclose(np.abs(drawn).max(), np.abs(theirs).max(), rtol=0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_variables_are_keras(variant):
    """he_normal over the inputs, cut off at 2 sd; glorot_uniform; scales of b within 0.05."""
    leaves = trees.flatten(rj.initial_variables(network(variant, blocks=1), 200, seed=0))
    for path, leaf in leaves.items():
        name = path.rsplit("/", 1)[1]
        if name == "kernel" and "head" in path:
            bound = np.sqrt(6 / sum(leaf.shape))
            assert 0.99 * bound < np.abs(leaf).max() <= bound
        elif name == "kernel":
            deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            assert np.abs(leaf).max() <= 2 * deviation / 0.8796
            np.testing.assert_allclose(leaf.std(), deviation, rtol=0.15, err_msg=path)
        elif name == "scale" and variant == "b":
            assert 0.03 < np.abs(leaf).max() <= 0.05, path
            assert leaf.min() < 0 < leaf.max()
        else:
            assert set(np.unique(leaf)) == {float(name in ("scale", "var"))}, path
    assert any("/adapter/norm/scale" in path for path in leaves)


def in_numpy(variables, images, variant):
    """The network as its description has it: no code of ours."""
    leaves = {}
    for tree in variables.values():
        leaves |= trees.flatten(tree)
    epsilon = 1e-3 if variant == "a" else 1e-5

    def conv(x, name, stride=1):
        kernel = leaves[f"{name}/kernel"]
        size, side = kernel.shape[0], x.shape[1]
        outputs = -(-side // stride)
        missing = max((outputs - 1) * stride + size - side, 0)
        pads = (missing // 2, missing - missing // 2)
        x = np.pad(x, ((0, 0), pads, pads, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
        y = np.einsum("bhwcij,ijcd->bhwd", windows[:, ::stride, ::stride], kernel, optimize=True)
        return y + leaves.get(f"{name}/bias", 0)

    def norm(x, name):
        scale, bias, mean, var = (
            leaves[f"{name}/{leaf}"] for leaf in ("scale", "bias", "mean", "var")
        )
        return (x - mean) / np.sqrt(var + epsilon) * scale + bias

    def adapted(x, name, stride=1):
        y = conv(x, name, stride)
        alpha = leaves[f"{name}/adapter/kernel"]
        bias = leaves.get(f"{name}/adapter/bias", 0)
        return y + norm(y, f"{name}/adapter/norm") @ alpha + bias

    def block(x, name, stride):
        y = np.maximum(norm(adapted(x, f"{name}/conv1", stride), f"{name}/norm1"), 0)
        y = norm(adapted(y, f"{name}/conv2"), f"{name}/norm2")
        if f"{name}/shortcut/kernel" in leaves:
            x = conv(x, f"{name}/shortcut", stride)
        return np.maximum(x + y, 0)

    x = norm(adapted(images, "stem"), "stem_norm")
    x = x if variant == "a" else np.maximum(x, 0)
    for stage in (1, 2, 3):
        for index in (1, 2):
            first = 2 if variant == "a" or stage > 1 else 1
            x = block(x, f"stage{stage}/block{index}", first if index == 1 else 1)
        if variant == "b" or stage == 3:
            x = np.maximum(norm(x, f"stage{stage}_norm"), 0)
    return x.mean((1, 2)) @ leaves["head/kernel"] + leaves["head/bias"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_network_and_the_network_folded(variant):
    """On images of odd sides; a constant is left of each adapter's norm and biases."""
    spec = network(variant, 0.0625, 2)
    variables = shaken(spec, 3)
    images = np.random.default_rng(1).normal(size=(2, 15, 15, 3)).astype(np.float32)
    expected = in_numpy(variables, images, variant)
    atol = 1e-5 * np.abs(expected).max()
    found = evaluated(spec.build(3), variables, images)
    np.testing.assert_allclose(found, expected, atol=atol)
    for fold_norm in (False, True):
        plain = folded_spec(spec, fold_norm=fold_norm)
        folded = fold(spec, variables, fold_norm=fold_norm)
        trees.check_like(folded, plain.abstract(3), "the folded domain")
        found = evaluated(plain.build(3), folded, images)
        np.testing.assert_allclose(found, expected, atol=atol)


def test_images_are_standardised_each_by_itself():
    """Whatever the domain's mean and std have made of an image."""
    spec, plain = (network("b", 0.0625, 1, standardise=it) for it in (True, False))
    variables = shaken(spec, 3)
    images = np.random.default_rng(1).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    means, stds = (getattr(images, it)((1, 2, 3), keepdims=True) for it in ("mean", "std"))
    expected = evaluated(plain.build(3), variables, (images - means) / (stds + 1e-7))
    for seen in (images, images / 100 - 3):
        found = evaluated(spec.build(3), variables, seen)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("everything", [False, True])
def test_decay_is_kerass_penalty(variant, everything):
    """Of w^2 on kernels of convolutions alone: not on biases, norms or the head."""
    spec = network(variant, 0.125, 1)
    variables = shaken(spec, 3)
    weights = jax.tree.map(jnp.asarray, {key: variables[key] for key in ("params", "adapters")})
    decay = decay_of(recipe(f"{variant}_scratch" if everything else variant))
    labels = optim.labels(weights, decay, spec.kind)
    optimizer = optim.make_optimizer(labels, decay, 0.1)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    moved, _ = optimizer.update(zeros, optimizer.init(weights), weights)
    before, moved, labels = map(trees.flatten, (weights, moved, labels))
    for path, change in moved.items():
        shared = path.startswith("params/")
        assert (labels[path] == optim.FROZEN) == (shared and not everything), path
        kernel = path.endswith("/kernel") and "/head/" not in path
        rate = 4e-4 if kernel and variant == "a" and (everything or not shared) else 0.0
        np.testing.assert_allclose(change, -0.1 * rate * before[path], rtol=1e-5, err_msg=path)


def test_the_recipe_and_its_variants():
    for variant in ("a", "b", "a_scratch", "b_scratch"):
        config = recipe(variant)
        config.domains = "digits"
        config.init_from = "" if variant.endswith("scratch") else "runs/pretrain"
        settings = read(config, devices=1)
        assert settings.backbone == ResNet28RAM(variant=variant[0], standardise=True)
        assert settings.network().adapter == network(variant[0]).adapter
        rate = settings.options.rate(90)
        np.testing.assert_allclose([rate(step) for step in (0, 31, 61)], [0.1, 0.01, 0.001])
    with pytest.raises(SystemExit, match="expected one of a, b, a_scratch and b_scratch"):
        recipe("c")


def test_shortcuts_of_a_domain_are_trained_as_adapters():
    """So that a run without adapters that trains them is no linear one."""
    config = recipe("a")
    config.update_from_flattened_dict(
        {"domains": "digits", "init_from": "runs/pretrain", "method": "linear"}
    )
    config.adapter.kind, config.adapter.options = "none", {}
    config.optim.decay.norms = None
    with pytest.raises(ValueError, match=r"decay\.adapters: found a number"):
        read(config, devices=1)
    config.optim.decay.adapters = None
    read(config, devices=1)


def test_the_recipe_trains_on_real_images(cache_dir, tmp_path):
    """Everything on surfaces, then the domain's own on digits; save, load, fold, serve together."""
    for variant, domain in (("a_scratch", "surfaces"), ("a", "digits")):
        config = recipe(variant)
        config.domains, config.data.source, config.data.cache = domain, "embedded", str(cache_dir)
        config.data.size = config.data.resize = 16
        config.backbone.width, config.backbone.options.blocks = 0.125, 1
        config.train.batch_size, config.train.steps, config.train.evals = 32, 2, 1
        config.init_from = str(tmp_path / "a_scratch") if variant == "a" else ""
        train_and_evaluate(config, tmp_path / variant)
    first, family = rj.Family.load(tmp_path / "a_scratch"), rj.Family.load(tmp_path / "a")
    assert family.fingerprint == first.fingerprint
    assert not family["digits"].has_own_weights
    source, own = (trees.flatten(family[it].variables["adapters"]) for it in ("surfaces", "digits"))
    shortcuts = {path: leaf for path, leaf in own.items() if "/shortcut/" in path}
    assert len(shortcuts) == 6
    for path, leaf in shortcuts.items():
        assert 0 < np.abs(leaf - source[path]).max() < 0.1, f"{path} starts as the source's"
    assert all(np.abs(leaf).max() > 0 for path, leaf in own.items() if "adapter/bias" in path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    alone = family.predict(pixels, domain="digits")
    np.testing.assert_allclose(
        family.fold("digits", fold_norm=True).predict(pixels), alone, atol=1e-5
    )
    mixed = family.predict(pixels, domains=["surfaces", "digits"] * 2)
    np.testing.assert_allclose(mixed[1::2], alone[1::2], atol=1e-5)
