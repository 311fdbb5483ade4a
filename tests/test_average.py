"""The mean of weights: what is averaged, what is exported, and that it is gone on with."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_end_to_end import small
from test_together import jobs_of

from radapt_jax.evaluation.statistics import batch_statistics
from radapt_jax.experiment.config import read
from radapt_jax.train import optim
from radapt_jax.train.devices import ManyDomains, OneDomain
from radapt_jax.train.loop import train_domains
from radapt_jax.train.place import InMemory
from radapt_jax.train.signals import Stopping
from radapt_jax.utils import trees


def test_the_mean_of_all_steps_and_then_of_the_last():
    """A plain mean until there are as many steps as are asked for, an exponential one after."""
    chain = optax.chain(optax.sgd(1.0), optim.averaging(4))
    weights = {"a": jnp.zeros(())}
    state, seen, expected = chain.init(weights), [], 0.0
    for step in range(1, 10):
        updates, state = chain.update({"a": jnp.float32(-step)}, state, weights)
        weights = optax.apply_updates(weights, updates)
        seen.append(float(weights["a"]))
        expected += (seen[-1] - expected) * max(1 / step, 1 / 4)
        found = float(optim.averaged(weights, state)["a"])
        assert found == pytest.approx(expected)
        if step <= 4:
            assert found == pytest.approx(np.mean(seen))


def test_what_is_frozen_has_no_mean(digits, cache_dir):
    (job,) = jobs_of((digits,), "parallel", cache_dir, **{"optim.average": 0.5})
    state = job.start()
    kept = trees.flatten(optim.averaged(state.weights, state.opt_state))

    def is_average(it):
        return isinstance(it, optim.Average)

    leaves = jax.tree.leaves(state.opt_state, is_leaf=is_average)
    sizes = sum(it.size for mean in filter(is_average, leaves) for it in jax.tree.leaves(mean.mean))
    own = {path: it for path, it in kept.items() if path.startswith("adapters/")}
    assert sizes == sum(it.size for it in own.values())
    filters, _ = trees.split(state.weights, lambda path: path.startswith("params/"))
    assert all(kept[path] is it for path, it in filters.items())


def trained(job):
    ((_, variables, results),) = train_domains([job], InMemory(bar=False), Stopping())
    return variables, results


def test_the_domain_is_the_mean_with_its_own_statistics(digits, cache_dir):
    """The weights are the mean of those of each step, and the norms' statistics go with them."""
    changes = {"train.steps": 4, "train.evals": 1, "optim.average": 1.0}
    (job,) = jobs_of((digits,), "parallel", cache_dir, **changes)
    variables, results = trained(job)
    steps = OneDomain([job], [job.start()], jax.devices())
    seen = []
    for step in range(4):
        steps.step(step)
        seen.append(trees.to_numpy(steps.state(0).weights))
    mean = jax.tree.map(lambda *them: np.mean(them, axis=0), *seen)
    chex.assert_trees_all_close({key: variables[key] for key in mean}, mean, rtol=1e-4, atol=1e-5)
    split = job.data.splits["train"]
    own = batch_statistics(job.spec, job.data.domain, variables, split)
    chex.assert_trees_all_close(variables["batch_stats"], own, rtol=1e-4, atol=1e-5)
    assert 0 < results["val"] <= 100
    moved = variables["adapters"]["head"]["kernel"] - seen[-1]["adapters"]["head"]["kernel"]
    assert np.abs(moved).max() > 1e-3


def test_domains_at_once_have_means_of_their_own(digits, faces, cache_dir):
    jobs = jobs_of((digits, faces), "parallel", cache_dir, **{"optim.average": 0.5})
    together = ManyDomains(jobs, [job.start() for job in jobs], jax.devices()[:1])
    for index in range(2):
        together.step(index)
    for place, job in enumerate(jobs):
        alone = OneDomain([job], [job.start()], jax.devices()[:1])
        for index in range(2):
            alone.step(index)
        means = [
            optim.averaged(it.weights, it.opt_state)["adapters"]
            for it in (together.state(place), jax.tree.map(np.array, alone.state(0)))
        ]
        chex.assert_trees_all_close(*means, rtol=1e-5, atol=1e-5)


def test_where_it_cannot_be(cache_dir, tmp_path):
    teachers = {"distill.teachers": str(tmp_path), "init_from": str(tmp_path)}
    for entry in ("optim.average", "train.distortion"):
        with pytest.raises(ValueError, match=rf"config\.{entry} 0\.5 in a run that distills"):
            read(small("distill", cache_dir, **teachers, **{entry: 0.5}), 1)
