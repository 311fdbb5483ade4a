"""Norm statistics taken anew."""

import dataclasses

import numpy as np
import pytest
from families import Tiny, empty_family, member_of, whole
from flax import linen as nn

import radapt_jax as rj
from radapt_jax.evaluation.statistics import renewed
from radapt_jax.utils import trees


def test_they_are_those_of_the_images(digits):
    """One batch of all images, whole: the first norm sees f * x of exactly these."""
    split = digits.splits["train"]
    params = rj.initial_variables(rj.ModelSpec(Tiny()), 2, seed=0)["params"]
    family = rj.Family(rj.Shared(params, Tiny()))
    family.add("it", member_of(digits, "none", 1, made=lambda _: Tiny()))
    before = family["it"]
    member = renewed(family, "it", split, count=64, batch_size=64)
    model = before.spec.build(10)
    from radapt_jax.data import augment, batches
    from radapt_jax.data.pixels import HostPixels

    batch = batches.train_batch(HostPixels(split, 16), digits.domain, 64, 0, 0, 1)
    seen = {key: it[0] for key, it in batch.items()}
    images = augment.network_input(seen, digits.domain.mean, digits.domain.std)
    _, mid = model.apply(
        family.variables("it"),
        images,
        train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=True,
    )
    u = np.asarray(mid["intermediates"]["one"]["__call__"][0], np.float64)
    found = member.variables["batch_stats"]["one_norm"]
    np.testing.assert_allclose(found["mean"], u.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found["var"], u.var((0, 1, 2), ddof=1), rtol=1e-4)
    for name in ("adapters", "batch_stats"):
        theirs, ours = (trees.flatten(it.variables[name]) for it in (before, member))
        assert theirs.keys() == ours.keys()
        assert all(np.array_equal(theirs[p], ours[p]) for p in theirs) == (name == "adapters")


@pytest.mark.parametrize("kind", ["series", "parallel"])
def test_several_batches_are_averaged(kind, digits):
    """Of one batch twice the statistics are those of the batch; of two, their mean."""
    split = digits.splits["train"]
    family = empty_family(1 / 16)
    family.add("it", member_of(digits, kind, 1, width=1 / 16))
    first = renewed(family, "it", split, count=32, batch_size=32)
    both = renewed(family, "it", split, count=64, batch_size=32)
    again = renewed(family, "it", split, count=64, batch_size=32)
    stats = [trees.flatten(it.variables["batch_stats"]) for it in (first, both, again)]
    for path, leaf in stats[0].items():
        np.testing.assert_array_equal(stats[1][path], stats[2][path])
        assert leaf.dtype == np.float32
        assert not np.array_equal(leaf, stats[1][path])


def test_in_python(digits):
    """Statistics that are of no use are mended, and the rest of the family stays."""
    split = digits.splits["train"]
    family = empty_family(1 / 16)
    family.add("it", member_of(digits, "parallel", 1, width=1 / 16))
    family.add("other", member_of(digits, "parallel", 2, width=1 / 16))
    images = whole(split, range(40))
    rj.renew_statistics(family, "it", images, count=64, batch_size=32)
    good = family.predict(images, domain="it")
    member = family["it"]
    wrong = trees.unflatten(
        {path: it + 3 for path, it in trees.flatten(member.variables["batch_stats"]).items()}
    )
    broken = dataclasses.replace(member, variables={**member.variables, "batch_stats": wrong})
    family.add("it", broken)
    assert np.abs(family.predict(images, domain="it") - good).max() > 0.05
    before = family.fingerprint
    rj.renew_statistics(family, "it", images, count=64, batch_size=32)
    np.testing.assert_allclose(family.predict(images, domain="it"), good, atol=1e-6)
    assert family.fingerprint == before
    with pytest.raises(ValueError, match="found count 8; expected a whole number from 32"):
        rj.renew_statistics(family, "it", images, count=8, batch_size=32)
    with pytest.raises(KeyError, match="nobody"):
        rj.renew_statistics(family, "nobody", images)


class Scaled(nn.Module):
    times: float

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(self.times * x)
        return nn.Dense(3)(x.mean((1, 2)))


def test_values_of_any_size(digits):
    """What a step keeps of the old statistics is told from the new ones, however large."""

    def variance(times):
        backbone = rj.adapt(Scaled(times), (), size=16)
        facts = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": 16, "resize": 16}
        family = rj.family_of_network(backbone, backbone.init(0), **facts)
        rj.renew_statistics(family, "source", whole(digits.splits["train"], range(32)))
        return family["source"].variables["batch_stats"]["BatchNorm_0"]["var"] / times**2

    for times in (0.01, 1e3, 1e5):
        np.testing.assert_allclose(variance(times), variance(1.0), rtol=1e-3)


def test_results_are_not_those_of_other_statistics(digits):
    family = empty_family(1 / 16)
    member = member_of(digits, "parallel", 1, width=1 / 16)
    family.add("it", dataclasses.replace(member, results={"val": 90.0}))
    rj.renew_statistics(
        family, "it", whole(digits.splits["train"], range(32)), count=32, batch_size=32
    )
    assert family["it"].results == {}


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x.mean((1, 2)))


def test_of_a_network_with_dropout(digits):
    backbone = rj.adapt(Dropping(), size=16)
    facts = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": 16, "resize": 16}
    family = rj.family_of_network(backbone, backbone.init(0), **facts)
    images = whole(digits.splits["train"], range(32))
    before = trees.flatten(family.variables("source"))["batch_stats/BatchNorm_0/mean"]
    rj.renew_statistics(family, "source", images)
    after = trees.flatten(family.variables("source"))["batch_stats/BatchNorm_0/mean"]
    assert not np.array_equal(before, after)
