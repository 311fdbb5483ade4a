"""Networks of one's own, unchanged, as backbones."""

import functools
import re

import jax
import numpy as np
import pytest
from own_networks import ConvNeXt, ResNet, ViT

import radapt_jax as rj
from radapt_jax.adapters import make_options
from radapt_jax.utils import trees

SIZE = 16
FACTS = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": SIZE, "resize": SIZE}
ATTENTION = re.compile("attention/(query|out)$")
NETWORKS = {  # module, and where it takes adapters
    "resnet": (ResNet, None),
    "convnext": (ConvNeXt, lambda path: path != "stem"),
    "vit": (ViT, ["*/mlp?", ATTENTION]),
}


@functools.cache
def own(name):
    made, where = NETWORKS[name]
    return rj.adapt(made(3), where, name=name, size=SIZE)


def shaken(tree, seed, share=1.0):
    """A tree with values at random near those it has."""
    stream = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (leaf + share * stream.uniform(0, 0.3, leaf.shape)).astype(leaf.dtype), tree
    )


@functools.cache
def source(name):
    """The backbone's family, with weights at random: its source domain alone."""
    weights = shaken(own(name).init(0), 1)
    return weights, rj.family_of_network(own(name), weights, **FACTS)


def member(name, kind, domain, seed, classes=4):
    """A domain with adapters, norms and statistics at random."""
    spec = rj.ModelSpec(own(name), make_options(kind, init="he_normal"))
    params = trees.flatten({"params": source(name)[1].shared.params})
    variables = rj.initial_variables(spec, classes, seed, params)
    del variables["params"]
    names = tuple(map(str, range(classes)))
    return rj.Member(rj.Domain(domain, names, **FACTS), spec, shaken(variables, seed))


def family(name, kinds):
    made = rj.Family(source(name)[1].shared, [source(name)[1]["source"]])
    for seed, kind in enumerate(kinds):
        made.add(kind, member(name, kind, kind, seed, classes=2 + seed))
    return made


def images(count=3, seed=0):
    stream = np.random.default_rng(seed)
    return stream.integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def normalised(found):
    return (found / 255 - 0.5) / 0.25


def original(name, classes, variables, found):
    """Logits of the network itself, which nothing intercepts."""
    module = NETWORKS[name][0](classes)
    flag = {"resnet": {"train": False}, "vit": {"deterministic": True}}.get(name, {})
    return module.apply(variables, normalised(found), **flag)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_source_domain_is_the_network_itself(name):
    weights, made = source(name)
    expected = jax.nn.softmax(original(name, 3, weights, images()))
    np.testing.assert_allclose(made.predict(images(), domain="source"), expected, atol=1e-6)
    stored = trees.flatten(made.variables("source"))
    for path, leaf in trees.flatten(weights).items():
        if path in stored:
            np.testing.assert_array_equal(stored[path], leaf)
    again = own(name).plain_variables(made.variables("source"))
    assert trees.fingerprint(again) == trees.fingerprint(weights)


@pytest.mark.parametrize("kind", ["parallel", "low_rank"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_domain_is_run_by_the_network_itself(name, kind):
    made = family(name, [kind])
    expected = made.predict(images(), domain=kind)
    assert np.abs(expected - made.predict(images(), domain="source")[:, :2]).max() > 1e-3
    folded = made.fold(kind)
    np.testing.assert_allclose(folded.predict(images()), expected, atol=1e-5)
    plain = own(name).plain_variables(folded.weights.variables)
    found = jax.nn.softmax(original(name, 2, plain, images()))
    np.testing.assert_allclose(found, expected, atol=1e-5)
