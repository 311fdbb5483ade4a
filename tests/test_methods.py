"""A recipe's name means what the recipe does; any other name is free."""

import importlib
import sys

import pytest
from conftest import ROOT

from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.decathlon.published import published
from radapt_jax.experiment import methods
from radapt_jax.experiment.config import read

VARIANTS = ("quickstart", "decathlon_like", "imagenet_to_sketch")  # of a recipe after the colon
RECIPES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix()
    for path in (ROOT / "configs").rglob("[!_]*.py")
    if path.stem not in ("base", *VARIANTS)
)
COMPRESSING = ("configs/compress", "configs/decathlon/svd")


def recipe(path, *variant, **changes):
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module(path.replace("/", ".")).get_config(*variant)
    sys.path.remove(str(ROOT))
    if not config.domains and not config.compress.kind:
        config.domains = "digits"
    if config.start == "backbone" and not config.init_from:
        config.init_from = "runs/pretrain"
    if config.distill.on:
        config.distill.teachers = "runs/finetune"
    if config.method == "taught":
        config.teachers = "runs/finetune"
    config.update_from_flattened_dict(changes)
    return config


def problem(config):
    """Return what is said of a config, or None where nothing is."""
    try:
        read(config, devices=1)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", RECIPES)
def test_every_recipe_does_what_its_name_says(path):
    config = recipe(path)
    assert config.method in methods.METHODS
    assert problem(config) is None


@pytest.mark.parametrize("path", VARIANTS)
def test_variants_of_a_recipe_keep_its_name(path):
    of = [name.removeprefix("configs/") for name in RECIPES if "decathlon" not in name]
    for variant in of:
        assert problem(recipe(f"configs/{path}", variant)) is None, variant
    factored = recipe(f"configs/{path}", "modulation:factored")
    assert (factored.method, problem(factored)) == ("modulation_low_rank", None)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("modulation:half", r"found variant 'half'; expected one of \['full', 'factored'\]"),
        ("norm:half", "found variant 'half' of recipe 'norm', which has none"),
        ("mask:half", "found variant 'half'; expected one of"),
        ("masks", "found recipe 'masks'; expected one of"),
    ],
)
def test_variants_that_are_not_there_are_named(variant, message):
    with pytest.raises(SystemExit, match=message):
        recipe("configs/quickstart", variant)


def test_published_methods_of_ours_are_known():
    """Above each of them only what was trained in that way can stand."""
    ours = {recipe(path).method for path in RECIPES}
    assert ours <= methods.METHODS.keys()
    venue = "CVPR 2018"
    theirs = {key for key, line in published().items() if venue in line.reference}
    assert theirs <= ours


@pytest.mark.parametrize(
    ("path", "changes", "entry", "called"),
    [
        (
            "parallel",
            {"adapter.kind": "series"},
            "adapter.kind: found 'series', expected",
            "series",
        ),
        ("parallel", {"adapter.kind": "none"}, "adapter.kind: found 'none'", "norm"),
        (
            "parallel",
            {"optim.decay.adapters": None},
            r"optim.decay.adapters: found None \(frozen\), expected a number",
            "my_parallel",
        ),
        ("parallel", {"optim.decay.norms": None}, "decay.norms: found None", "my_parallel"),
        ("parallel", {"optim.decay.head": None}, "decay.head: found None", "my_parallel"),
        (
            "parallel",
            {"optim.decay.filters": 5e-4},
            r"decay.filters: found a number \(trained\), expected None",
            "my_parallel",
        ),
        ("parallel", {"adapter.stages": "late"}, "stages: found 'late'", "parallel_late"),
        ("parallel", {"adapter.stages": "late,mid"}, "found 'mid,late'", "my_parallel"),
        ("parallel", {"adapter.convs": "first"}, "convs: found 'first'", "parallel_half"),
        ("parallel", {"start": "random", "init_from": ""}, "start: found 'random'", "my_parallel"),
        ("parallel", {"compress.kind": "joint"}, "compress.kind: found 'joint'", "joint"),
        ("series", {"source_adapter": "none"}, "source_adapter", "series_off_the_shelf"),
        ("series_off_the_shelf", {"source_adapter": None}, "expected 'none'", "series"),
        ("linear", {"optim.decay.norms": 0.0}, "decay.norms: found a number", "norm"),
        ("norm", {"optim.decay.filters": 0.0}, "decay.filters", "finetune"),
        ("finetune", {"start": "random"}, "start", "scratch"),
        ("compress", {"compress.kind": ""}, "compress.kind: found ''", "norm"),
        ("compress", {"optim.decay.adapters": None}, "decay.adapters", "my_joint"),
        ("join", {"adapter.kind": "low_rank"}, "found 'low_rank', expected 'joint'", "low_rank"),
        ("join", {"adapter.kind": "parallel"}, "or 'modulation_joint' or 'conv_lora", "parallel"),
        ("mask", {"adapter.kind": "affine_mask"}, "found 'affine_mask'", "affine_mask"),
        ("modulation", {"optim.decay.norms": None}, "decay.norms: found None", "my_modulation"),
        (
            "finetune",
            {"distill.on": True, "distill.teachers": "runs/finetune"},
            "distill.on: found True, expected False",
            "distill",
        ),
        ("distill", {"start": "random"}, "start: found 'random'", "my_distill"),
        ("taught", {"teachers": ""}, r"teachers: found '' \(none\), expected a run", "parallel"),
        ("norm", {"teachers": "runs/x"}, r"teachers: found a run \(learnt from\)", "taught"),
        ("decathlon/scratch", {"adapter.kind": "series"}, "adapter.kind", "my_scratch"),
        ("decathlon/parallel_early", {"adapter.stages": "mid"}, "'mid'", "parallel_mid"),
        ("decathlon/parallel_half", {"adapter.convs": "second"}, "'second'", "my_parallel_half"),
    ],
)
def test_a_recipes_name_for_something_else_is_refused(path, changes, entry, called):
    """The message shows both sides and a name that will do; with it the run is taken."""
    config = recipe(f"configs/{path}", **{"domains": "digits", **changes})
    with pytest.raises(ValueError, match=f"{entry}(.|\n)*--config.method={called} "):
        read(config, devices=1)
    config.method = called
    assert problem(config) is None


def test_what_changes_nothing_is_not_looked_at():
    taken = [
        ("linear", {"adapter.stages": "late", "optim.decay.adapters": 1e-3}),
        ("compress", {"adapter.kind": "parallel", "compress.ranks": "budget"}),
        ("compress", {"compress.kind": "low_rank"}),
        ("compress", {"compress.kind": "modulation_joint"}),
        ("join", {"adapter.kind": "conv_lora_joint"}),
        (
            "parallel",
            {"adapter.stages": "late, mid,early", "adapter.options": {"dropout": (0.5, 0.0)}},
        ),
        ("parallel", {"method": "mine", "optim.decay.adapters": None}),
        ("scratch", {"adapter.kind": "parallel"}),  # pre-training with adapters inside
    ]
    for name, changes in taken:
        assert problem(recipe(f"configs/{name}", **changes)) is None, (name, changes)
    several = {"domains": ",".join(DECATHLON), "adapter.kind": "series"}
    assert "'scratch' is a recipe's name" in problem(recipe("configs/scratch", **several))


def test_a_compressed_domain_keeps_the_runs_own_name():
    labels = [
        read(recipe("configs/compress", **changes), devices=1).label
        for changes in ({}, {"compress.kind": "low_rank"}, {"method": "mine"})
    ]
    assert labels == ["joint", "low_rank", "mine"]
    assert read(recipe("configs/parallel"), devices=1).label == "parallel"
