"""The study of nine domains: its parts are runs, and its tables say what its rows say."""

import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image

from configs import decathlon_like
from radapt_jax.experiment.config import read

sys.path.append(str(ROOT / "benchmarks"))

import figures
import study_blocks
import trained_runs
from study import picture, recipes
from study.parts import CROPPED, METHODS, ORIGINAL, WHOLE
from study.run import PRETRAINING
from trained_runs import DOMAINS, SOURCE


def line(method, domain, seed, top1, **changes):
    facts = {"ratio": "0.1", "basis": "0.0", "bytes": "200000", "minutes": "2.0"}
    row = {"method": method, "domain": domain, "seed": str(seed), "test_top1": str(top1)}
    return {**row, **facts, **changes}


def lines(method, top1, seeds=(0, 1), **changes):
    """Rows of all domains, with the backbone's own; errors fall from domain to domain."""
    return [
        *(
            line(method, it, seed, top1 + place + seed, **changes)
            for seed in seeds
            for place, it in enumerate(DOMAINS)
        ),
        *(line(method, SOURCE, seed, 32.0, minutes="", bytes="") for seed in seeds),
    ]


def cells(table, name):
    (found,) = [it for it in table.splitlines() if it.startswith(f"| {name} |")]
    return [it.strip() for it in found.strip("|").split("|")]


@pytest.mark.parametrize("name", METHODS)
def test_a_part_of_the_study_is_a_run(name):
    part = METHODS[name]
    config = decathlon_like.get_config(part.recipe)
    domains = [] if part.after else ["cifar100", "gtsrb"]  # all of the run that it goes on with
    places = {"init_from": "runs/pretrain", "domains": ",".join(domains)}
    teachers = {"teachers": "runs/finetune"} if part.taught_by else {}
    config.update_from_flattened_dict({**places, **teachers, **part.entries})
    if "8 epochs" in part.source:
        domains = list(CROPPED if name.endswith("crops") else ORIGINAL)
    assert list(read(config, 1).domains) == domains
    assert part.after or part.source in PRETRAINING
    assert {part.after, part.taught_by} <= {"", *METHODS}


def test_differences_are_paired_and_the_baseline_scores_2500():
    """A method that has one seed is compared on that seed; half a domain's rows are no seed."""
    rows = [
        *lines("finetune", 50, ratio="1.0", bytes=""),
        *lines("parallel", 52, seeds=(1,)),
        *lines("linear", 40)[:3],
    ]
    drawn = study_blocks.study(rows)
    assert "linear" not in drawn
    base, ours = cells(drawn, "finetune"), cells(drawn, "parallel")
    assert base[1:] == [
        "2",
        "54.5 ± 0.7",
        "",
        "-2.0 [-2.0, -2.0] (n = 1)",
        "2,500",
        "10.00x",
        "",
        "18",
    ]
    assert ours[1:3] == ["1", "57.0"]
    assert ours[3] == "+2.0 [+2.0, +2.0]"
    expected = 250 + sum(1000 * (1 - (47 - place) / (2 * (49 - place))) ** 2 for place in range(9))
    assert ours[5:] == [f"{expected:,.0f}", "1.90x", "200", "18"]
    assert cells(study_blocks.study_by_domain(rows), "parallel")[1:] == [
        f"{53 + place:.1f}" for place in range(9)
    ]


def test_what_domains_share_counts_once():
    rows = lines("joint, K = C/2", 50, ratio="0.05", basis="0.2")
    assert cells(study_blocks.study(rows), "joint, K = C/2")[6] == "1.65x"


@pytest.mark.parametrize("name", recipes.CHANGES)
def test_a_trial_is_a_run(name):
    config = decathlon_like.get_config("parallel")
    places = {"init_from": "runs/pretrain", "domains": ",".join(DOMAINS), "method": "trial"}
    places |= {"teachers": "runs/finetune"} if name == recipes.TAUGHT else {}
    config.update_from_flattened_dict({**places, **recipes.CHANGES[name]})
    assert list(read(config, 1).domains) == list(DOMAINS)


def test_the_recipe_shows_these_domains_whole():
    crops = {name: decathlon_like.OPTIONS[name].get("crop") for name in DOMAINS}
    assert {name for name, crop in crops.items() if crop == "centre"} == set(WHOLE)


def test_our_recipe_crops_them():
    ours = decathlon_like.get_config("parallel:ours").options
    papers = decathlon_like.get_config("parallel").options
    assert {name for name in ours if ours[name].to_dict() != papers[name].to_dict()} == set(WHOLE)
    assert {ours[name].crop for name in WHOLE} == {"random"}
    assert not any(ours[name].flip for name in WHOLE)


def test_changes_of_the_recipe_are_compared_with_it():
    def trial(change, seed, top1):
        facts = {"change": change, "seed": str(seed)}
        return [{**facts, "domain": it, "val_top1": str(top1 + seed)} for it in DOMAINS]

    rows = [*trial("none", 0, 60), *trial("none", 2, 60), *trial("mixup 0.2", 0, 61)]
    rows += [*trial("mixup 0.2", 1, 80), *trial("rate 0.2", 2, 63), *trial("rate 0.05", 5, 63)]
    drawn = study_blocks.study_recipes(rows)
    assert cells(drawn, "the paper's recipe")[1:4] == ["0, 2", "60.0, 62.0", ""]
    assert cells(drawn, "mixup 0.2")[1:4] == ["0", "61.0", "+1.0 [+1.0, +1.0]"]
    assert cells(drawn, "rate 0.2")[1:] == ["2", "65.0", "+3.0 [+3.0, +3.0]"] + ["+3.0"] * len(
        DOMAINS
    )
    assert drawn.index("rate 0.2") < drawn.index("mixup 0.2")
    assert "rate 0.05" not in drawn


def test_shares_of_the_images():
    rows = [*lines("norm", 60), *lines("norm, 10 % of the images", 50), *lines("mask", 55)]
    drawn = study_blocks.study_of_shares(rows)
    assert cells(drawn, "method")[1:] == ["10 %", "100 %"]
    assert cells(drawn, "norm")[1:] == ["54.5 ± 0.7", "64.5 ± 0.7"]
    rows = [*lines("norm", 60, seeds=(0, 1)), *lines("norm, 10 % of the images", 50, seeds=(0,))]
    assert cells(study_blocks.study_of_shares(rows), "norm")[1:] == ["54.0", "64.0"]
    assert "mask" not in drawn
    assert "10 %" not in study_blocks.study(rows)


def test_the_original_stands_beside_ours():
    rows = [it for it in lines("norm", 60, seeds=(0,)) if it["domain"] in ("dtd10", "gtsrb")]
    theirs = [{"method": "norm", "domain": it, "test_top1": "49.3"} for it in ("dtd10", "gtsrb")]
    rows += [line("norm, 8 epochs", it["domain"], 0, 50) for it in theirs]
    rows += [line("norm, 8 epochs, crops", it, 0, 55) for it in CROPPED]
    drawn = study_blocks.study_original(rows, theirs)
    assert cells(drawn, "norm, PyTorch")[1:] == ["49.3", "49.3"]
    assert cells(drawn, "norm, ours, 25 epochs")[1:] == ["65.0", "61.0"]
    assert cells(drawn, "norm, ours, 8 epochs")[1:] == ["50.0", "50.0"]
    assert cells(drawn, "norm, ours, 8 epochs, crops")[1:] == ["", "55.0"]


def test_the_picture_says_what_it_is_of(tmp_path):
    rows = [
        *lines("finetune", 50, ratio="1.0"),
        *lines("parallel", 52),
        *lines("joint, K = C/2", 51),
    ]
    picture.draw(rows, tmp_path / "study.png")
    with Image.open(tmp_path / "study.png") as drawn:
        assert drawn.text["Source"] == figures.digest(rows)
        assert drawn.width > 800


def test_a_difference_of_other_seeds_says_so():
    """Means of other seeds do not compare; what is paired does."""
    rows = [*lines("finetune", 50, seeds=(0, 1, 2)), *lines("parallel", 51, seeds=(2, 9))]
    drawn = study_blocks.study(rows)
    assert cells(drawn, "parallel")[1:4] == ["2", "60.5 ± 4.9", "+1.0 [+1.0, +1.0] (n = 1)"]


def test_a_run_is_taken_for_what_it_was_made_by(tmp_path, monkeypatch):
    """One that failed is started again, and one of other entries is not taken."""
    started = []

    def train(command, check):
        started.append(command)
        assert check
        (tmp_path / "results.json").write_text("{}")  # which a run that failed has, too
        if len(started) == 1:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(trained_runs.subprocess, "run", train)
    monkeypatch.setattr(trained_runs.machine, "facts", lambda: {"commit": f"c{len(started)}"})
    with pytest.raises(subprocess.CalledProcessError):
        trained_runs.finish("linear", tmp_path, {"seed": 0})
    for _ in range(2):
        trained_runs.finish("linear", tmp_path, {"seed": 0})
    assert len(started) == 2
    assert trained_runs.facts_of(tmp_path) == {"commit": "c1"}
    (tmp_path / "norm").mkdir()
    monkeypatch.chdir(tmp_path)  # the same run, its folders spelt otherwise
    for entries in {"init_from": tmp_path / "b", "data.dir": "x"}, {"init_from": "b"}:
        trained_runs.finish("norm", tmp_path / "norm", entries)
    assert len(started) == 3
    with pytest.raises(SystemExit, match=r"made otherwise: init_from was \.\./b, is \.\./c"):
        trained_runs.finish("norm", tmp_path / "norm", {"init_from": "c"})
    with pytest.raises(SystemExit, match=r"made otherwise: train\.epochs was None, is 1"):
        trained_runs.finish("linear", tmp_path, {"seed": 0, "train.epochs": 1})
