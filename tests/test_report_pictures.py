"""The pictures of a page of finished runs: what each draws, in which colours, by which names."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from families import empty_family, member_of
from PIL import Image

from radapt_jax.compress.family import compress_family
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.evaluation.result import Result, row_of
from radapt_jax.report.page import judged, layers, look, pictures, ranks, training
from radapt_jax.report.page.runs import Run

DOMAIN = "digits"


def result(domain=DOMAIN, images=100, top1=50.0, parameters=10):
    return Result(domain, "parallel", 10, images, "test", 20, top1, parameters, 0.1)


def run(name, results=(), epochs=(), family=None, sizes=None):
    """A run; what it measured in training is (epoch, training loss, validation top-1 or None)."""
    lines = []
    for epoch, loss, top1 in epochs:
        lines.append({"epoch": str(epoch), "split": "train", "loss": str(loss), "top1": "1"})
        if top1 is not None:
            lines.append({"epoch": str(epoch), "split": "val", "loss": "9", "top1": str(top1)})
    curves = {DOMAIN: lines} if lines else {}
    return Run(name, Path(name), family, list(results), curves, {}, sizes or {})


def family_run(family):
    return run("it", [row_of(family, name, "test", 0, None) for name in family], family=family)


def colours(picture):
    """The series' colours that a picture has."""
    with Image.open(io.BytesIO(picture.png["light"])) as image:
        found = {colour for _, colour in image.convert("RGB").getcolors(2**24)}
    return {it for it in look.COLOURS if tuple(bytes.fromhex(it[1:])) in found}


@pytest.fixture(scope="module")
def dense(digits, faces):
    """A family of two domains with parallel adapters."""
    family = empty_family()
    for seed, data in enumerate((digits, faces)):
        family.add(data.domain.name, member_of(data, "parallel", seed))
    return family


def test_several_runs_are_lines_of_one_picture():
    points = [(1, 2.0, 30.0), (2, 1.0, 40.0)]
    first, second, third = (
        run("first", [result()], points),
        run("untrained", [result()]),
        run("third", [result()], [(1, 2.0, None), (2, 0.5, 45.0)]),
    )
    [picture] = training.compared([first, second, third])
    assert (picture.name, picture.title) == ("training_digits", "Training on digits")
    assert "validation top-1 (%) by epoch, at the end: first 40, third 45" in picture.words
    assert "training loss (nats) by epoch, at the end: first 1, third 0.5" in picture.words
    assert colours(picture) == {look.COLOURS[0], look.COLOURS[2]}, "as elsewhere on the page"


def test_epochs_of_different_lengths_are_compared_by_images():
    some = run("some", [result(images=1000)], [(1, 2.0, None)])
    more = run("more", [result(images=5000)], [(1, 1.0, None)])
    [picture] = training.compared([some, run("of others", [result("faces")]), more])
    assert picture.words.startswith("training loss (nats) by images seen (thousands)")


def test_a_run_alone_shows_its_domains():
    assert training.of_run(run("it")) is None
    assert training.of_run(run("it", [], [(1, 2.0, None)])).words.startswith("training loss")
    assert training.of_run(run("it", [], [(1, 2.0, 5.0)])).words.startswith("validation top-1")


def test_a_run_keeps_its_colour_where_another_has_no_point():
    several = [
        run("a", [result(top1=None)]),
        run("b", [result(parameters=10)]),
        run("c", [result(parameters=500_000)]),
    ]
    picture = pictures.cost(several, "parameters")
    assert colours(picture) == set(look.COLOURS[1:3])
    assert pictures.cost(several[:2], "parameters") is None


def test_what_compressed_domains_share_is_counted_once(dense):
    joint = compress_family(dense, "joint", rank_rule("uniform"))
    runs = [family_run(dense), dataclasses.replace(family_run(joint), name="joint")]
    runs = [
        dataclasses.replace(it, results=[dataclasses.replace(row, top1=50.0) for row in it.results])
        for it in runs
    ]
    own = sum(row.parameters for row in runs[1].results)
    beta = joint.shared.basis_parameters()
    assert beta > 0
    (_, size, _) = pictures._costs(runs, "parameters")[1]
    assert size == own + beta
    runs = [dataclasses.replace(it, sizes=dict.fromkeys(it.family, 1000)) for it in runs]
    assert [size for _, size, _ in pictures._costs(runs, "bytes")] == [2, 2 + 4 * beta / 1000]


def test_ranks_by_layer(dense):
    assert ranks.ranks(family_run(dense)) is None
    joint = compress_family(dense, "joint", rank_rule("uniform", share=0.5))
    words = ranks.ranks(family_run(joint)).words
    assert words.startswith("digits, faces: 2 to 16, mean "), words
    apart = compress_family(dense, "low_rank", rank_rule("energy", energy=0.6))
    words = ranks.ranks(family_run(apart)).words
    assert words.startswith("digits: "), words
    assert "; faces: " in words
    assert "the highest there can be: 3 to 32" in words


def test_how_far_filters_moved_beside_a_shared_factor(dense):
    """β is among the shared weights, and is no filter."""
    joint = compress_family(dense, "joint", rank_rule("uniform", share=1.0))
    words = [layers.moved(family_run(it)).words for it in (dense, joint)]
    assert words[0] == words[1]


def test_a_legend_has_room_for_long_names():
    names = [f"{it}{'_' * 80}{it}$x$" for it in "ab"]
    heights = []
    for legend in (None, look.lines(names), look.lines("ab")):
        found = look.drawn("", "", "", lambda figure: figure.subplots(), 3.0, legend)
        with Image.open(io.BytesIO(found.png["light"])) as image:
            heights.append(image.height / look.DPI)
            assert image.width == look.INCHES * look.DPI
    np.testing.assert_allclose(heights, [3, 3 + 2 * look.ROW, 3 + look.ROW], atol=0.01)
    assert look.short("abcdefghij", 7) == "abc…hij"
    assert look.short("abcdefg", 7) == "abcdefg"


def test_files_of_pictures_have_names_of_their_own():
    names = ["moved_a b", "moved_a-b", "moved_A_b", "moved_a_b_2", "moved_c"]
    expected = ["moved_a_b", "moved_a_b_2", "moved_A_b_3", "moved_a_b_2_2", "moved_c"]
    assert look.file_names(names) == expected


def test_the_front_is_what_no_other_beats():
    points = [(3, 70), (1, 60), (2, 55), (2, 65), (4, 70), (5, 71)]
    assert pictures.front(points) == [(1, 60), (2, 65), (3, 70), (5, 71)]


def test_the_commonest_confusions():
    counts = np.array([[5, 2, 0], [1, 4, 3], [0, 0, 6]])
    found = judged.commonest(counts, ("a", "b", "c"))
    assert found == [("b", "c", 3), ("a", "b", 2), ("b", "a", 1)]


def test_a_picture_is_drawn_for_light_and_for_dark():
    found = look.drawn("name", "title", "words", lambda figure: figure.subplots().plot([1, 2]))
    for theme, (background, *_) in look.THEMES.items():
        with Image.open(io.BytesIO(found.png[theme])) as image:
            corner = image.convert("RGB").getpixel((0, 0))
        assert "#{:02x}{:02x}{:02x}".format(*corner) == background
