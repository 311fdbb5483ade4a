"""No image is judged as validation that was trained on, however a folder changes."""

import dataclasses
import importlib
import json
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, SMALL
from families import empty_family, member_of
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from radapt_jax import Family
from radapt_jax.compress.family import compress_family
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.data import holdout
from radapt_jax.data.holdout import HeldOut, OtherImages
from radapt_jax.data.load import load_domain
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.experiment import compressed
from radapt_jax.experiment.config import read
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.utils import trees

FRACTION = 0.25


def divided(names, fraction=FRACTION, how="random"):
    """Return the names of one class that train and those that are held out."""
    hashes = np.array([holdout.hashed(name) for name in names], holdout.HASHES)
    labels = np.zeros(len(names), np.int32)
    held = holdout.choose_held_out(hashes, labels, how, fraction)
    val = {names[position] for position in held}
    return set(names) - val, val


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=3, max_size=40, unique=True), st.data())
def test_a_growing_class_moves_nobody_from_train_to_validation(names, data):
    size = data.draw(st.integers(2, len(names) - 1))
    assume(any(holdout.hashed(name) >= FRACTION * 2**64 for name in names[:size]))
    seen = set()
    while size <= len(names):
        train, val = divided(sorted(names[:size]))
        assert train
        assert val
        assert not seen & val
        seen |= train
        size += data.draw(st.integers(1, 5))


def test_a_class_whose_images_would_all_be_held_out_keeps_one():
    low = [name for name in map(str, range(100)) if holdout.hashed(name) < FRACTION * 2**64]
    assert [len(part) for part in divided(low)] == [1, len(low) - 1]
    assert [len(part) for part in divided(low[:1])] == [1, 0]
    high = [name for name in map(str, range(100)) if name not in low]
    assert [len(part) for part in divided(high)] == [len(high) - 1, 1]


def test_as_many_are_held_out_as_were_asked_for():
    for fraction in (0.02, 0.1, 0.5):
        val = divided(list(map(str, range(20_000))), fraction)[1]
        assert len(val) == pytest.approx(20_000 * fraction, rel=0.15)


def test_copies_of_an_image_stay_together():
    hashes = np.array([5, 5, 5, 2**63, 2**63 + 1], holdout.HASHES)
    chosen = holdout.choose_held_out(hashes, np.zeros(5), "random", FRACTION)
    assert chosen.tolist() == [0, 1, 2]
    chosen = holdout.choose_held_out(hashes[[3, 0, 4, 1]], np.zeros(4), "blocks", FRACTION)
    assert chosen.tolist() == [1, 3]
    assert not len(holdout.choose_held_out(hashes[:3], np.zeros(3), "random", FRACTION))


def test_fewer_images_are_the_same_ones_when_there_are_more():
    hashes = np.array([holdout.hashed(str(name)) for name in range(200)], holdout.HASHES)
    few, many = (
        holdout.choose_used(hashes[:amount], np.zeros(amount), 1.0, 20, 0) for amount in (150, 200)
    )
    assert 10 <= len(set(few) & set(many)) < 20
    assert set(many) - set(few) <= set(range(150, 200))
    other = holdout.choose_used(hashes, np.zeros(200), 1.0, 20, 1)
    assert set(other.tolist()) != set(many.tolist())


def test_what_was_held_out_is_kept_exactly():
    held = HeldOut.of([2**64 - 1, 0, 7])
    facts = json.loads(json.dumps(held.to_json()))
    assert HeldOut.from_json(facts) == held
    assert (facts["count"], facts["digest"]) == (3, held.digest)
    assert HeldOut.from_json(HeldOut().to_json()) == HeldOut()
    for change in ({"names": facts["names"][:-4] + "AAA="}, {"count": 2}, {"names": "?"}):
        with pytest.raises(ValueError, match=r"."):
            HeldOut.from_json({**facts, **change})


# A folder of one's own, trained on and then changed.


def picture(path, index):
    examples = list(open_embedded("surfaces").splits["train"]())
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(examples[index].image).save(path)


def config_of(root, cache_dir, recipe="scratch"):
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module(f"configs.{recipe}").get_config()
    sys.path.remove(str(ROOT))
    config.backbone.width = 0.125
    config.data.source, config.data.dir = "folder", str(root)
    config.data.size, config.data.resize = 16, 16
    config.data.cache = str(cache_dir)
    config.data.val_fraction = FRACTION
    config.train.batch_size, config.train.steps, config.train.evals = 8, 2, 1
    config.domains = "rocks"
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache_dir):
    """A workdir, and the folder without val and test that it was trained on."""
    root, workdir = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("run")
    for index in range(0, 600, 50):
        picture(root / "rocks" / "train" / f"{index // 200}" / f"{index}.png", index)
    train_and_evaluate(config_of(root, cache_dir), workdir)
    return workdir, root


@pytest.fixture
def moved(trained, tmp_path):
    """The same, the folder being a copy that may be changed."""
    shutil.copytree(trained[1], tmp_path / "data")
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run", tmp_path / "data"


def judge(moved, cache_dir, split="val"):
    workdir, root = moved
    return evaluate_family(Family.load(workdir), split=split, cache_dir=cache_dir, data_dir=root)


def forget(workdir):
    """Make a domain's card one from before what was held out was written down."""
    path = workdir / "domains" / "rocks" / "card.json"
    card = json.loads(path.read_text())
    del card["held_out"]
    path.write_text(json.dumps(card))


@pytest.mark.parametrize("split", ["val", "test"])  # the folder has no test images
def test_a_folder_that_grows_is_judged_on_what_was_held_out(moved, cache_dir, split):
    before = judge(moved, cache_dir, split)
    held = Family.load(moved[0])["rocks"].held_out
    assert len(held.names) == before[0].count > 0
    assert before[0].split == "val"
    for index in range(30):
        picture(moved[1] / "rocks" / "train" / "1" / f"new{index}.png", 200 + index)
    after = judge(moved, cache_dir, split)
    assert (after[0].count, after[0].top1) == (before[0].count, before[0].top1)


def test_renamed_images_are_refused(moved, cache_dir):
    for number, path in enumerate(sorted((moved[1] / "rocks").rglob("*.png"))):
        path.rename(path.with_name(f"renamed{number}.png"))
    held = Family.load(moved[0])["rocks"].held_out
    with pytest.raises(OtherImages, match=r"(?s)found: .*expected:.*train .* anew") as error:
        judge(moved, cache_dir)
    assert str(held) in str(error.value)
    (row,) = judge(moved, cache_dir, "test")  # of all domains, the others are evaluated
    assert (row.split, row.top1) == ("nothing", None)


def test_a_val_folder_that_came_later_is_refused(moved, cache_dir):
    path = next((moved[1] / "rocks" / "train" / "0").glob("*.png"))
    (moved[1] / "rocks" / "val" / "0").mkdir(parents=True)
    path.rename(moved[1] / "rocks" / "val" / "0" / path.name)
    with pytest.raises(OtherImages, match=r"(?s)found: .*a split val of 1 images.*expected:"):
        judge(moved, cache_dir)


def test_a_card_that_does_not_say_is_judged_with_a_warning(moved, cache_dir, caplog):
    """As it was cut then, if as many images are there; by a seed of their number."""
    workdir, root = moved
    forget(workdir)
    path = workdir / "domains" / "rocks" / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "images": {"train": 9, "val": 3}}))
    (row,) = judge(moved, cache_dir)
    assert row.count == 3
    assert "it cannot be checked that none of them has been trained on" in caplog.text
    picture(root / "rocks" / "train" / "1" / "new.png", 201)
    with pytest.raises(OtherImages, match=r"(?s)'train': 10.*'train': 9"):
        judge(moved, cache_dir)


def test_a_training_does_not_go_on_with_other_images_held_out(moved, cache_dir):
    """Not even where train and val have as many images as before."""
    workdir, root = moved
    for part in ("domains", "shared"):
        shutil.rmtree(workdir / part)
    lowest = lowest_of(root / "rocks" / "train" / "1")
    name = next(
        name
        for name in (f"{number}.png" for number in range(1000, 10_000))
        if holdout.hashed(f"1/{name}") < holdout.hashed(f"1/{lowest.name}")
    )
    lowest.rename(lowest.with_name(name))
    with pytest.raises(ValueError, match=r"images\.held out: was '\w+', is '\w+'"):
        train_and_evaluate(config_of(root, cache_dir), workdir)


def lowest_of(folder):
    return min(folder.iterdir(), key=lambda path: holdout.hashed(f"{folder.name}/{path.name}"))


def test_compression_holds_out_what_training_did(moved, cache_dir):
    root = moved[1]
    defaults = {**SMALL, "source": "folder", "dir": root, "val_fraction": FRACTION}
    data = load_domain("rocks", defaults, {"val": "blocks"}, cache_dir)
    member = dataclasses.replace(
        member_of(data, "parallel", 1), data=data.spec, held_out=data.held_out
    )
    family = empty_family()
    family.add("rocks", member)
    small = compress_family(family, "low_rank", rank_rule("uniform"))
    for index in range(8):
        picture(root / "rocks" / "train" / "1" / f"z{index}.png", 200 + index)
    config = config_of(root, cache_dir, "compress")
    config.init_from = "a run"
    settings = read(config, 1)
    dense = compressed.dense_of(settings, family, ["rocks"])
    opened = compressed.Opened(small, dense)
    job = compressed.compressed_job(settings, opened, "rocks")(None)
    assert job.data.held_out == data.held_out
    assert len(job.data.splits["val"]) == len(data.splits["val"])
    assert len(job.data.splits["train"]) == len(data.splits["train"]) + 8
    fresh = load_domain("rocks", defaults, {"val": "blocks"}, cache_dir)
    assert fresh.held_out != data.held_out


def test_a_compression_that_goes_on_finds_moved_images_and_takes_statistics_anew(
    moved, cache_dir, tmp_path
):
    """As it would have where it was begun, had the images been there."""
    root = moved[1]
    defaults = {**SMALL, "source": "folder", "dir": str(root), "val_fraction": FRACTION}
    data = load_domain("rocks", defaults, {}, cache_dir)
    family = empty_family()
    made = member_of(data, "parallel", 1)
    family.add("rocks", dataclasses.replace(made, data=data.spec, held_out=data.held_out))
    compress_family(family, "low_rank", rank_rule("uniform")).save(tmp_path / "new" / "compressed")
    root.rename(tmp_path / "elsewhere")
    config = config_of(tmp_path / "elsewhere", cache_dir, "compress")
    config.init_from, config.compress.kind = "a run", "low_rank"
    config.compress.statistics = 8
    settings = read(config, 1)
    dense = compressed.dense_of(settings, family, ["rocks"])
    opened = compressed.open_compressed(settings, tmp_path / "new", dense)
    before = trees.flatten(opened.family.variables("rocks"))["batch_stats/norm/mean"]
    job = compressed.compressed_job(settings, opened, "rocks")(None)
    assert not np.array_equal(before, job.variables["batch_stats"]["norm"]["mean"])
