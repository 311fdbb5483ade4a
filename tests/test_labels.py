"""The decathlon's test labels, and submissions scored by them: made ones, and the authors' own."""

import json
import zipfile

import pytest
from conftest import SHARED
from test_score import PRINTED

from radapt_jax import __main__
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.decathlon.labels import BLOCK, accuracy, read_labels, score_submission
from radapt_jax.decathlon.published import published
from radapt_jax.decathlon.score import decathlon_points, decathlon_score

OFFICIAL = SHARED / "facts" / "decathlon_labels_test.zip"
FACTS = SHARED / "facts" / "decathlon.json"


def make_labels(folder, count):
    """Write `<domain>_test.json`, with `count` images a domain that go through its classes."""
    folder.mkdir()
    for name, facts in DECATHLON.items():
        notes = [
            {
                "image_id": facts.category_base + 200_000 + index,
                "category_id": facts.category_base + index % facts.num_classes,
            }
            for index in range(count)
        ]
        (folder / f"{name}_test.json").write_text(json.dumps({"annotations": notes}))
    return folder


@pytest.fixture(scope="module", params=["made", "official"])
def labels(request, tmp_path_factory):
    """A folder of labels, 10,000 images a domain; the authors' zip file."""
    if request.param == "made":
        return make_labels(tmp_path_factory.mktemp("labels") / "made", 10_000)
    if not OFFICIAL.is_file():
        pytest.skip("the authors' labels are not here")
    return OFFICIAL


@pytest.fixture(scope="module")
def truth(labels):
    return {name: read_labels(labels, name) for name in DECATHLON}


@pytest.fixture
def run(tmp_path, labels, capsys):
    """Score answers (pairs of image number and category) by the command; return what it prints."""

    def score(answers, *options, labels=labels):
        file = tmp_path / "results.json"
        listed = [{"image_id": number, "category_id": category} for number, category in answers]
        file.write_text(json.dumps(listed))
        arguments = ["decathlon", "score", file, "--labels", labels, *options]
        __main__.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return score


def right(truth, *domains):
    return [pair for name in domains or DECATHLON for pair in truth[name].items()]


def wrong(domain, category):
    """Return another category of the domain."""
    facts = DECATHLON[domain]
    return facts.category_base + (category - facts.category_base + 1) % facts.num_classes


def answers_of(truth, accuracies):
    """Answer so many images of each domain right that its top-1 is as near as can be."""
    for name, part in truth.items():
        good = round(len(part) * accuracies[name] / 100)
        for index, (number, category) in enumerate(part.items()):
            yield number, category if index < good else wrong(name, category)


def test_image_numbers_tell_the_domain(truth):
    """No number is in two domains, and all are in the block of their domain's categories."""
    numbers = {number for part in truth.values() for number in part}
    assert len(numbers) == sum(map(len, truth.values()))
    for name, part in truth.items():
        facts = DECATHLON[name]
        assert {number // BLOCK for number in part} == {facts.category_base // BLOCK}
        places = {category - facts.category_base for category in part.values()}
        assert places <= set(range(facts.num_classes))


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="the authors' labels are not here")
def test_the_authors_labels_are_whole():
    domains = json.loads(FACTS.read_text())["domains"]
    for name in DECATHLON:
        part = read_labels(OFFICIAL, name)
        assert len(part) == domains[name]["num_test"]
        assert len(set(part.values())) == domains[name]["num_classes"]


def test_all_right_is_10_000(truth, run):
    """In whatever order the answers come."""
    printed = run(reversed(right(truth)))
    header, _, *lines = printed.splitlines()
    assert header.split("  ")[0] == "domain"
    for name, line in zip(DECATHLON, lines, strict=False):
        largest = 2 * (100 - DECATHLON[name].baseline)
        assert line.split() == [name, "100.00", "0.00", f"{largest:.2f}", "1000.0", "0.0"]
    assert lines[len(DECATHLON)].split() == ["S", "10000.0"]
    assert printed.endswith("evaluated on the challenge's test split.\n")


@pytest.mark.parametrize("key", ["finetune_2017", "parallel", "joint", "url_parallel"])
def test_answers_of_published_accuracies_have_the_published_score(key, truth, tmp_path, labels):
    """As near as a whole number of right answers comes to an accuracy of two decimals.

    That is half an image in each domain: nothing for 10,000 images, and up to 3.5 points of S for
    the authors' numbers of images, two fifths of it from gtsrb, where one percent brings hundreds.
    The printed S is of unrounded accuracies, within 2.5 points of that of the printed ones.
    """
    theirs = published()[key].accuracies
    listed = [
        {"image_id": number, "category_id": category}
        for number, category in answers_of(truth, theirs)
    ]
    (tmp_path / "results.json").write_text(json.dumps(listed))
    found = score_submission(tmp_path / "results.json", labels)
    assert list(found) == list(DECATHLON)
    tolerance = 1e-6
    for name, part in truth.items():
        half = 0 if len(part) == 10_000 else 50 / len(part)
        assert abs(found[name] - theirs[name]) <= half + 1e-9
        less, more = (
            decathlon_points({name: it})[name].points for it in (theirs[name], theirs[name] + half)
        )
        tolerance += more - less
    assert tolerance < 3.5
    assert decathlon_score(found) == pytest.approx(published()[key].score, abs=tolerance)
    assert decathlon_score(found) == pytest.approx(PRINTED[key], abs=2.5 + tolerance)


def test_an_accuracy_is_that_of_the_answers(truth, run):
    """One wrong answer, of a domain that is alone."""
    part = truth["dtd"]
    number = max(part)
    answers = {**part, number: wrong("dtd", part[number])}
    printed = run(answers.items(), "--format", "csv").splitlines()
    top1 = 100 * (len(part) - 1) / len(part)
    assert printed[1].startswith(f"dtd,{top1:.2f},{100 - top1:.2f},88.94,")
    assert accuracy("dtd", list(answers.items()), part) == pytest.approx(top1)


def test_fewer_domains_are_scored_and_said(truth, run):
    printed = run(right(truth, "svhn", "dtd", "aircraft"))
    assert "S (3 of 10)" in printed
    assert "3000.0" in printed
    without = "imagenet12, cifar100, daimlerpedcls, gtsrb, vgg-flowers, omniglot, ucf101"
    assert printed.endswith(f"3 of 10 domains; without {without}.\n")


def test_missing_doubled_and_foreign_images_are_named(truth, run):
    first, second, *_ = sorted(truth["svhn"])
    answers = sorted(truth["svhn"].items())
    foreign = DECATHLON["svhn"].category_base
    missing = f"not answered, such as {first}"
    doubled = f"1 answered more than once, such as {second}"
    strange = f"1 not of the domain's test images, such as {foreign}"
    for given, faults in (
        (answers[2:], f"2 {missing}"),
        ([*answers, answers[1]], doubled),
        ([*answers, (foreign, foreign)], strange),
        (
            [*answers[1:], (foreign, foreign), *answers[1:2] * 2],
            f"1 {missing}; {doubled}; {strange}",
        ),
    ):
        with pytest.raises(SystemExit) as error:
            run([*right(truth, "dtd"), *given])
        assert str(error.value).startswith(
            f"error: domain 'svhn': the labels are of {len(answers):,} images, the answers of "
            f"{len(given):,}: {faults}. Expected one answer for each test image"
        )


def test_numbers_and_categories_of_no_domain(truth, run):
    answers = right(truth, "dtd")
    with pytest.raises(SystemExit, match=r"2 image numbers are of no domain, such as -1; .*10,000"):
        run([*answers, (7, 40000001), (-1, 40000001)])
    base = DECATHLON["dtd"].category_base
    places = [(number, category - base) for number, category in answers]
    with pytest.raises(SystemExit, match=r"'dtd': .* category that it .* 40000001 to 40000047\. A"):
        run(places)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ("[]", "holds an empty list; expected a flat list of"),
        ('{"svhn": []}', "holds a dict"),
        ('[{"image_id": 40200001}]', r"entry 0 is \{'image_id': 40200001\}"),
        ('[{"image_id": "1", "category_id": 2}]', "entry 0"),
        ('[{"image_id": 40200001, "category_id": true}]', "entry 0"),
        ("[[40200001, 40000001]]", r"entry 0 is \[40200001, 40000001\]"),
    ],
)
def test_a_file_that_is_no_submission(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        score_submission(tmp_path / "results.json", tmp_path)


def test_a_submission_or_labels_that_are_not_there(tmp_path):
    arguments = ["decathlon", "score", str(tmp_path / "results.json"), "--labels", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"error: .*results\.json"):
        __main__.main(arguments)
    (tmp_path / "results.json").write_text('[{"image_id": 40200001, "category_id": 40000001}]')
    with pytest.raises(SystemExit, match=r"error: found no .*dtd_test\.json; .*--labels PATH"):
        __main__.main(arguments)


def test_a_zip_file_of_labels_is_read_in_place(tmp_path):
    """Flat or in a folder; a damaged one and one without a domain are named."""
    folder = make_labels(tmp_path / "labels", 5)
    for inner in ("", "labels/"):
        with zipfile.ZipFile(tmp_path / "labels.zip", "w") as archive:
            archive.write(folder / "dtd_test.json", f"{inner}dtd_test.json")
        assert read_labels(tmp_path / "labels.zip", "dtd") == read_labels(folder, "dtd")
    with pytest.raises(FileNotFoundError, match=r"found 0 files svhn_test\.json in .*labels\.zip"):
        read_labels(tmp_path / "labels.zip", "svhn")
    data = bytearray((tmp_path / "labels.zip").read_bytes())
    data[100] ^= 255
    (tmp_path / "labels.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"labels\.zip cannot be read: Bad CRC"):
        read_labels(tmp_path / "labels.zip", "dtd")
    assert {path.name for path in tmp_path.iterdir()} == {"labels", "labels.zip"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not in the COCO format"),
        ({"annotations": []}, "holds 0 annotations of 0 images"),
        ({"annotations": [{"image_id": 1, "category_id": 2}] * 2}, "2 annotations of 1 images"),
        ({"annotations": [{"image_id": 1}]}, "COCO format: KeyError"),
    ],
)
def test_labels_of_another_format(tmp_path, content, message):
    (tmp_path / "dtd_test.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path, "dtd")
