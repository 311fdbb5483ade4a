"""Recipes of single methods: what each trains, on ResNet-26 of a sixteenth of its width."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from families import whole
from test_methods import recipe

from configs import base
from radapt_jax import initial_variables
from radapt_jax.adapters import KINDS
from radapt_jax.adapters.base import Site
from radapt_jax.adapters.low_rank import Ranked
from radapt_jax.experiment.config import read
from radapt_jax.experiment.methods import METHODS
from radapt_jax.train.job import Job
from radapt_jax.train.step import update
from radapt_jax.utils import trees

ADAPTED = (
    *("series", "parallel", "low_rank", "modulation", "modulation:factored", "controller"),
    *("mask", "affine_mask", "conv_lora", "random_basis", "vera", "conv_adapter"),
)
OURS = ("parallel", "mask", "affine_mask", "vera", "conv_adapter")
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# What has no gradient until something else has left 0, and no decay.
WAITING = {
    "series": {"norm/bias"},
    "affine_mask": {"scores"},
    "vera": {"inner"},
    "conv_adapter": {"down_bias", "scale"},
}


METHODS_PAGE = (ROOT / "docs" / "methods.md").read_text()
SITE = Site("conv", size=3, inputs=12, outputs=20)


def test_the_page_of_methods_has_every_kind_as_it_is():
    """Kinds in order, their own parameters on one convolution, whether they fold, and recipes."""
    table = METHODS_PAGE.partition("| kind |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert [row[0] for row in rows] == list(KINDS)
    for name, _, formula, folds, _, _, recipes in rows:
        kind = KINDS[name]
        options = kind.Options(**{"ranks": 5} if issubclass(kind.Options, Ranked) else {})
        known = {"C": SITE.inputs, "D": SITE.outputs, "K": SITE.size, "r": 5, "w": 3}
        found = eval(formula.strip("`"), {"ceil": math.ceil}, known)
        assert found == kind.parameters(options, SITE), name
        assert (folds == "yes") == kind.foldable, name
        for recipe_of in recipes.replace("`", "").split(", "):
            config = base.recipe(recipe_of)
            kinds = (config.adapter.kind, config.compress.kind)
            assert name in kinds or recipe_of in ("compress", "join"), name


def test_every_kind_of_a_domains_own_has_a_recipe():
    kinds = {base.recipe(name).adapter.kind for name in ADAPTED}
    assert kinds == {name for name, kind in KINDS.items() if kind.leaves and not kind.shares()}
    assert kinds <= METHODS.keys()


@pytest.mark.parametrize("name", OURS)
def test_ours_is_the_papers_recipe_at_another_rate(name):
    papers, ours = (base.recipe(f"{name}:{variant}") for variant in ("paper", "ours"))
    assert papers.to_dict() == base.recipe(name).to_dict()
    assert ours.optim.adapter_rate != papers.optim.adapter_rate
    ours.optim.adapter_rate = papers.optim.adapter_rate
    assert ours.to_dict() == papers.to_dict()
    with pytest.raises(SystemExit, match="found variant 'theirs'; expected one of"):
        base.recipe(f"{name}:theirs")


def test_our_rate_of_parallel_adapters_follows_that_of_the_rest():
    config = base.recipe("parallel:ours")
    config.optim.learning_rate = 0.02
    assert config.optim.adapter_rate == pytest.approx(0.06)
    config.optim.adapter_rate = 0.5
    assert (config.optim.learning_rate, config.optim.adapter_rate) == (0.02, 0.5)


@pytest.mark.parametrize("name", ADAPTED)
def test_a_recipe_takes_a_step(name, digits):
    """What its domain has moves, but for what waits for others; filters stay, bit for bit."""
    path, *variant = name.split(":")
    config = recipe(f"configs/{path}", *variant)
    config.backbone.width, config.train.batch_size = 1 / 16, 16
    settings = read(config, devices=1)
    spec = settings.network()
    start = initial_variables(spec, digits.domain.num_classes, seed=0)
    job = Job(settings.options, digits, spec, start)
    images = whole(digits.splits["train"], range(16)) / np.float32(255)
    optimizer, labels = job.optimizer(), job.labels
    model, targets = spec.build(digits.domain.num_classes), digits.splits["train"].targets[:16]

    def step(state):
        key = jax.random.key(0)
        return update(model, optimizer, labels, state, images, jnp.array(targets), key=key)

    state = jax.tree.map(jnp.asarray, job.start())
    end, measured = jax.jit(step).lower(state).compile(QUICKLY)(state)
    assert np.isfinite(measured["loss"])
    assert trees.fingerprint(trees.to_numpy(end.params)) == trees.fingerprint(start["params"])
    before, after = trees.flatten(start["adapters"]), trees.flatten(end.adapters)
    still = {
        path.rpartition("/adapter/")[2] for path in before if np.all(before[path] == after[path])
    }
    assert still <= WAITING.get(config.adapter.kind, set())
    if settings.options.adapters_apart:  # Adam's first step is its rate
        waiting = {path for path in before if path.rpartition("/adapter/")[2] in still}
        moves = [
            abs(after[path] - before[path]).max()
            for path in before
            if "/adapter/" in path and path not in waiting
        ]
        np.testing.assert_allclose(max(moves), settings.options.adapter_rate, rtol=1e-2)
