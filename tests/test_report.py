"""The page of finished runs: what it holds, that it needs nothing else, and what it refuses."""

import base64
import html.parser
import io
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from test_end_to_end import small

from radapt_jax.decathlon.runs import evaluate
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.report.page import judge, judged, runs, write_page


class Page(html.parser.HTMLParser):
    """Collects what a page refers to, its images, and what it shows as text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.images, self.words, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.tags.append(tag)
        self.links += [facts[it] for it in ("src", "href", "srcset") if it in facts]
        if tag == "img":
            self.images.append(facts)

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.fixture(scope="module")
def workdirs(cache_dir, tmp_path_factory):
    """A run with parallel adapters and one without, of the same two domains."""
    folder = tmp_path_factory.mktemp("runs")
    train_and_evaluate(small("scratch", cache_dir), folder / "pretrain")
    for recipe in ("parallel", "norm"):
        changes = {"domains": "digits,faces", "init_from": str(folder / "pretrain")}
        train_and_evaluate(small(recipe, cache_dir, **changes), folder / recipe)
    return [folder / "parallel", folder / "norm"]


@pytest.fixture(scope="module")
def page(workdirs, cache_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert write_page(workdirs, path, cache_dir=cache_dir) == path
    return path


def png(uri):
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_page_needs_nothing_beside_it(page):
    found = Page(page.read_text())
    assert {link.split(":")[0] for link in found.links if not link.startswith("#")} == {"data"}
    assert "script" not in found.tags
    for image in found.images:
        png(image["src"]).verify()
        assert image["alt"]


def test_it_is_light_on_paper(page):
    text = page.read_text()
    dark = [line for line in text.splitlines() if "prefers-color-scheme: dark" in line]
    assert len(dark) > 1
    assert all("screen and (prefers-color-scheme: dark)" in line for line in dark)


def test_the_page_shows_both_runs(page, workdirs):
    text = page.read_text()
    words = " ".join(Page(text).words)
    for row in runs.read_runs(workdirs)[0].results:
        assert row.domain in words
        assert f"{row.top1:.2f}" in words
    for heading in ("parallel", "norm", "The surest mistakes", "The commonest confusions"):
        assert heading in words
    assert "adapter.kind" in words  # in which the runs differ
    for title in ("Accuracy by domain", "Accuracy against parameters", "Accuracy against bytes"):
        assert text.count(f"<figcaption>{title}</figcaption>") == 1
    for domain in ("digits", "faces"):
        assert text.count(f"<figcaption>Training on {domain}</figcaption>") == 1
    assert "<figcaption>Training</figcaption>" not in text
    assert text.count("<figcaption>Singular values of the adapters</figcaption>") == 1


def test_pictures_are_written_beside_it(page):
    names = {path.stem for path in (page.parent / "report_pictures").glob("*.png")}
    assert {"accuracy", "cost_bytes", "moved_parallel", "training_digits"} <= names
    assert "confusions_digits_parallel" in names


def test_names_are_escaped(workdirs, cache_dir, tmp_path):
    evil = tmp_path / "<b onload=x>"
    shutil.copytree(workdirs[0], evil)
    text = write_page([evil], tmp_path / "page.html", cache_dir=cache_dir, images=False).read_text()
    assert text.count("<figcaption>Training</figcaption>") == 1  # of a run alone
    assert "<b onload" not in text
    assert "&lt;b onload=x&gt;" in text


def test_the_command_and_eval_write_it(workdirs, cache_dir, tmp_path):
    run, cache = str(workdirs[0]), str(cache_dir)
    radapt = [sys.executable, "-m", "radapt_jax"]
    own = ["report", run, "--out", "own.html", "--cache", cache, "--no-images"]
    asked = ["eval", "--workdir", run, "--report", "asked.html", "--cache", cache]
    asked += ["--split", "val", "--domains", "digits"]
    for command in (own, asked):
        subprocess.run([*radapt, *command], cwd=tmp_path, check=True, capture_output=True)
    assert "The surest mistakes" not in (tmp_path / "own.html").read_text()
    text = (tmp_path / "asked.html").read_text()
    assert "The commonest confusions" in text
    assert "images of val" in text, "what was evaluated, and not once more on test"
    assert "images of test" not in text
    early = ["eval", "--workdir", "nowhere", "--report", str(tmp_path)]  # before it looks for runs
    done = subprocess.run([*radapt, *early], cwd=tmp_path, capture_output=True, text=True)
    assert f"error: found no place for a page at {tmp_path}; expected a file" in done.stderr


def test_known_answers_are_not_asked_for_again(workdirs, cache_dir, tmp_path, monkeypatch):
    found = []
    [rows] = evaluate(
        list(map(str, workdirs[:1])),
        ["digits"],
        cache_dir=cache_dir,
        crops=5,
        see=lambda workdir, answers: found.append(judge(answers)),
    ).values()
    assert [(it.domain, it.split, it.count) for it in found] == [("digits", "test, 5 crops", 500)]
    wrong = round((100 - rows[0].top1) * 5)
    assert len(found[0].mistakes) == min(wrong, judged.MISTAKES)
    for it in found[0].mistakes:
        assert it.right != it.said
        assert it.sure >= it.chance
        assert it.sure + it.chance <= 100.01
    monkeypatch.delattr("radapt_jax.report.page.page.judge_run")
    path = write_page(workdirs[:1], tmp_path / "page.html", cache_dir=cache_dir, judged=[found])
    assert "digits: 500 images of test, 5 crops" in path.read_text()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it(page, tmp_path, width):
    """On a telephone and on a desk, without an error in its console."""
    picture = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    options += [f"--window-size={width},2000", f"--screenshot={picture}"]
    done = subprocess.run(
        ["chromium", *options, page.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr
    with Image.open(picture) as image:
        colours = image.convert("RGB").getcolors(2**24)
    assert len(colours) > 50


def test_what_is_no_finished_run_is_refused(workdirs, tmp_path):
    with pytest.raises(ValueError, match="found no workdirs"):
        write_page([], tmp_path / "page.html")
    with pytest.raises(ValueError, match="twice"):
        write_page([workdirs[0], workdirs[0]], tmp_path / "page.html")
    with pytest.raises(FileNotFoundError, match="expected a finished run"):
        write_page([tmp_path], tmp_path / "page.html")
    (tmp_path / "results.json").write_text('[{"top1": 3}]')
    with pytest.raises(ValueError, match="holds no results"):
        write_page([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_runs_of_one_name_are_told_apart(workdirs, tmp_path):
    other = tmp_path / "again" / "parallel"
    shutil.copytree(workdirs[0], other)
    first, second = runs.read_runs([workdirs[0], other])
    assert (first.name, second.name) == (f"{workdirs[0].parent.name}/parallel", "again/parallel")
    more = [tmp_path / it / "again" / "parallel" for it in "xy"]
    for place in more:
        shutil.copytree(workdirs[0], place)
    assert [it.name for it in runs.read_runs(more)] == ["x/again/parallel", "y/again/parallel"]
