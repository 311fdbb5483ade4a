"""The decathlon's score, and the published results that it must reproduce."""

import json
import math
import re

import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st

from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.decathlon.published import published
from radapt_jax.decathlon.score import decathlon_points, decathlon_score

BASELINE = {name: facts.baseline for name, facts in DECATHLON.items()}
PRINTED = {
    "finetune_2017": 2500,
    "linear": 544,
    "scratch": 1625,
    "finetune": 3096,
    "series": 3159,
    "parallel": 3412,
    "parallel_early": 2610,
    "parallel_mid": 2852,
    "parallel_late": 3159,
    "parallel_half": 3061,
    "joint": 3398,
    "series_2017": 2643,
    "dan": 2851,
    "piggyback": 2838,
    "nettailor": 3744,
    "url": 3626,
    "url_parallel": 4005,
}

accuracy = st.floats(0, 100)
accuracies = st.dictionaries(st.sampled_from(list(DECATHLON)), accuracy, min_size=1).filter(
    lambda them: max(them.values()) > 1
)


def test_baseline_scores_exactly_2500():
    assert decathlon_score(BASELINE) == 2500.0
    assert all(domain.points == 250.0 for domain in decathlon_points(BASELINE).values())


def test_perfect_and_hopeless():
    assert decathlon_score(dict.fromkeys(DECATHLON, 100.0)) == 10_000
    assert decathlon_score({"svhn": 93.0, "gtsrb": 95.0}) == 0


@pytest.mark.parametrize("key", PRINTED)
def test_published_scores_are_reproduced(key):
    assert published()[key].score == pytest.approx(PRINTED[key], abs=2.5)


def test_published_lines_are_whole():
    results = published()
    assert list(results) == list(PRINTED)
    for result in results.values():
        assert list(result.accuracies) == list(DECATHLON)
        assert result.method
        assert re.fullmatch(r"[A-Z].+, [A-Za-z]+ 20\d\d", result.reference)
        assert result.reference.endswith(f", {result.venue}")
    assert results["finetune_2017"].accuracies == BASELINE
    assert results["nettailor"].ratio is None
    assert results["parallel"].mean == pytest.approx(78.07, abs=0.006)


@pytest.mark.skipif(not (SHARED / "facts").is_dir(), reason="the facts file is not here")
def test_published_lines_are_those_of_the_facts_file():
    theirs = json.loads((SHARED / "facts" / "decathlon.json").read_text())["published"].values()
    for ours, facts in zip(published().values(), theirs, strict=True):
        assert ours.accuracies == facts["accuracy_percent"]
        assert ours.ratio == facts["params_ratio"]
        assert PRINTED[ours.key] == facts["score"]


@given(accuracies, st.data())
def test_score_grows_with_every_accuracy(given, data):
    name = data.draw(st.sampled_from(sorted(given)))
    better = {**given, name: data.draw(st.floats(given[name], 100))}
    assert decathlon_score(better) >= decathlon_score(given)


@given(accuracies)
def test_score_is_the_sum_of_the_points(given):
    points = decathlon_points(given)
    assert list(points) == [name for name in DECATHLON if name in given]
    assert decathlon_score(given) == pytest.approx(sum(it.points for it in points.values()))
    assert all(0 <= it.points <= 1000 for it in points.values())


@given(accuracies, st.data())
def test_next_point_is_what_one_more_percent_brings(given, data):
    name = data.draw(st.sampled_from(sorted(given)))
    better = {**given, name: min(100, given[name] + 1)}
    gain = decathlon_score(better) - decathlon_score(given)
    assert decathlon_points(given)[name].next_point == pytest.approx(gain, abs=1e-8)


def test_order_and_spelling_do_not_matter():
    one = {"vgg-flowers": 80.0, "svhn": 97.0}
    assert decathlon_score(one) == decathlon_score({"svhn": 97.0, "vgg_flowers": 80.0})


@pytest.mark.parametrize(
    ("accuracies", "message"),
    [
        ({}, "found no accuracies"),
        ({"svnh": 96.0}, r"'svnh'.*Did you mean 'svhn'"),
        ({"digits": 96.0}, r"'digits'.*Leave other domains out"),
        ({"vgg_flowers": 80.0, "vgg-flowers": 80.0}, "'vgg-flowers' twice"),
        ({"svhn": math.nan}, "accuracy nan"),
        ({"svhn": math.inf}, "accuracy inf"),
        ({"svhn": -0.1}, r"accuracy -0.1; expected percent in \[0, 100\]"),
        ({"svhn": 100.1}, "accuracy 100.1"),
        ({"svhn": None}, "accuracy None.*has not been evaluated"),
    ],
)
@pytest.mark.parametrize("function", [decathlon_score, decathlon_points])
def test_bad_accuracies_are_named(function, accuracies, message):
    with pytest.raises(ValueError, match=message):
        function(accuracies)


def test_fractions_are_not_percent():
    with pytest.raises(ValueError, match=r"fractions. Multiply them by 100"):
        decathlon_score({"svhn": 0.9655, "dtd": 0.55})
    assert decathlon_points({"omniglot": 0.1})["omniglot"].points == 0
