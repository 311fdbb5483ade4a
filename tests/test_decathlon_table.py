"""Table 1 with our lines in it, in four styles, and the renderer under all tables."""

import csv
import dataclasses
import io
import re

import pytest

from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.decathlon.published import published
from radapt_jax.decathlon.score import decathlon_points, decathlon_score
from radapt_jax.decathlon.table import (
    HEADER,
    SHORT,
    Line,
    decathlon_table,
    points_table,
    run_tables,
)
from radapt_jax.evaluation.result import Result
from radapt_jax.report import results as report_results
from radapt_jax.report.render import STYLES, render
from radapt_jax.report.results import VALIDATION

NOTE = "trained on train, evaluated on val"
WHOLE = Line("parallel", "parallel", 2.03, dict(published()["joint"].accuracies), NOTE)
PART = Line("R&D_1 | 50%", "norm", None, {"vgg_flowers": 80.123, "svhn": 97.0, "dtd": None}, NOTE)
ROWS = [
    Result("svhn", "parallel", 10, 47_217, "val", 26_040, 96.5, 1_234_567, 0.113, basis=0.5),
    Result("dtd", "parallel", 47, 1_880, "not here", 0, None, 987, 0.1),
]


def table_lines(text):
    """Return header and lines of a text table, without rules and notes."""
    blocks = re.split(r"^-+$", text, flags=re.MULTILINE)
    return [blocks[0].strip("\n"), *blocks[1].strip("\n").split("\n")]


def parse(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_short_names_are_in_the_order_of_the_domains():
    letters = zip(SHORT, DECATHLON, strict=True)
    assert all(short[0].lower() in (name[0], "f") for short, name in letters)


def test_published_line_is_under_ours():
    lines = decathlon_table([PART, WHOLE]).split("\n")
    assert [line[:9] for line in lines[2:5]] == ["ours: R&D", "ours: par", "published"]
    assert "Parallel residual adapters [CVPR 2018]" in lines[4]
    assert "2.03x" in lines[3]
    assert lines[-3:] == [
        f"ours: R&D_1 | 50%: {NOTE}.",
        f"ours: parallel: {NOTE}.",
        "published: evaluated on the challenge's test split.",
    ]


def test_part_of_the_domains_is_marked():
    line = decathlon_table([PART]).split("\n")[2]
    score = decathlon_score({"vgg-flowers": 80.123, "svhn": 97.0})
    assert line.endswith(f"{(80.123 + 97) / 2:.2f}  {score:,.0f} (2 of 10)")
    assert line.count(" -") == 9
    assert "(10 of 10)" not in decathlon_table([WHOLE])


@pytest.mark.parametrize("style", STYLES)
def test_nothing_evaluated_yet(style):
    table = decathlon_table([Line("new", "norm", None, {}, "not evaluated")], style)
    assert "ours: new" in table
    assert "published" not in table


def test_a_run_below_one_percent_has_a_line():
    assert "0.30" in decathlon_table([Line("new", "norm", None, {"omniglot": 0.3}, NOTE)])


@pytest.mark.parametrize("style", STYLES)
def test_all_published_lines_once(style):
    table = decathlon_table([WHOLE], style, all_published=True)
    assert len(re.findall(r"published: .*\[", table)) == len(published())


def test_notes_are_in_every_style():
    for style in STYLES:
        assert NOTE in decathlon_table([WHOLE], style)


def test_csv_gives_the_numbers_back():
    ours, part, theirs = (
        parse(decathlon_table(results, "csv"))[index]
        for results, index in (([WHOLE], 0), ([PART], 0), ([WHOLE], 1))
    )
    for short, name in zip(SHORT, DECATHLON, strict=True):
        assert float(ours[short]) == WHOLE.accuracies[name]
        assert float(theirs[short]) == published()["parallel"].accuracies[name]
    assert float(ours["S"]) == pytest.approx(decathlon_score(WHOLE.accuracies))
    assert float(ours["#par"]) == 2.03
    assert (ours["note"], ours["domains"], part["domains"]) == (NOTE, "10", "2")
    assert part["method"] == "ours: R&D_1 | 50%"
    assert (part["Flwr"], part["DTD"], part["#par"]) == ("80.123", "", "")


def test_columns_of_text_are_aligned():
    header, *lines = table_lines(decathlon_table([PART, WHOLE], all_published=True))
    ends = [match.end() for match in re.finditer(r"\S+", header)][1:]
    for line in lines:
        assert len(line) == len(header)
        assert all(line[end - 1] != " " and line[end : end + 2].strip() == "" for end in ends)


@pytest.mark.parametrize(
    "table",
    [
        decathlon_table([PART, WHOLE], "markdown", all_published=True),
        points_table(WHOLE.accuracies, "markdown"),
        report_results.table(ROWS, "markdown"),
    ],
)
def test_lines_of_markdown_have_equally_many_cells(table):
    lines = [line for line in table.split("\n") if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_latex_is_escaped():
    table = decathlon_table([PART, WHOLE], "latex")
    assert r"ours: R\&D\_1 | 50\% & " in table
    assert r"\begin{tabular}{l" + "r" * (len(HEADER) - 1) + "}" in table
    body = [line for line in table.split("\n") if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {len(HEADER) - 1}
    comments = table.split("\\end{tabular}\n")[1].split("\n")
    assert all(line.startswith("% ") for line in comments)
    assert r"\textbackslash{}\{\}\$\#\textasciitilde{}\textasciicircum{}" in render(
        ("a",), [("\\{}$#~^",)], "latex"
    )


def test_points_of_each_domain():
    table = parse(points_table(WHOLE.accuracies, "csv"))
    points = decathlon_points(WHOLE.accuracies)
    assert [line["domain"] for line in table] == [*DECATHLON, "S"]
    for line, name in zip(table, DECATHLON, strict=False):
        assert float(line["points"]) == pytest.approx(points[name].points, abs=0.06)
        assert float(line["one more % brings"]) == pytest.approx(points[name].next_point, abs=0.06)
        assert float(line["accuracy %"]) + float(line["error %"]) == pytest.approx(100)
    assert float(table[-1]["points"]) == pytest.approx(decathlon_score(WHOLE.accuracies), abs=0.06)
    assert "S (1 of 10)" in points_table({"svhn": 97.0})


def test_table_of_a_run():
    assert report_results.table(ROWS).endswith("in all (0.50 of it the shared β), heads apart.")
    assert "\n% 2 domains: " in report_results.table(ROWS, "latex")
    line = parse(report_results.table(ROWS, "csv"))[0]
    assert (line["parameters"], line["evaluated on"]) == ("1234567", "val (26040)")


@pytest.mark.parametrize("style", STYLES)
def test_validation_figures_of_the_decathlon_say_that_they_mislead(style):
    """Under each table, once for each line of ours; not for test images or those of others."""

    def printed(split, challenge):
        row = dataclasses.replace(ROWS[0], split=split, challenge=challenge)
        return run_tables({"run": [row]}, style)

    misleading = printed("val, 10 crops", "svhn")
    assert "44 % on val and 64 % on test of aircraft" in misleading.replace(r"\%", "%")
    alone = style in ("csv", "latex")  # table 1
    assert misleading.count(VALIDATION) == (1 if alone else 3)
    assert VALIDATION not in printed("test", "svhn")
    assert VALIDATION not in printed("val", None)
    table = report_results.table([dataclasses.replace(ROWS[0], challenge="svhn")], style)
    assert (VALIDATION in table) == (style != "csv")


def test_several_runs_without_the_challenges_domains_are_one_csv():
    rows = [dataclasses.replace(row, challenge=None) for row in ROWS]
    table = parse(run_tables({"runs/a": rows, "runs/b": rows[:1]}, "csv"))
    expected = [*(("runs/a", row.domain) for row in rows), ("runs/b", rows[0].domain)]
    assert [(line["run"], line["domain"]) for line in table] == expected
    titles = run_tables({"runs/a": rows, "runs/b": rows[:1]}, "latex").splitlines()
    assert [line for line in titles if line.startswith("% runs/")] == ["% runs/a", "% runs/b"]
    assert "run" not in parse(run_tables({"runs/a": rows}, "csv"))[0]


def test_unknown_style_and_ragged_lines():
    with pytest.raises(ValueError, match="'html'; expected one of text, markdown, csv, latex"):
        decathlon_table([WHOLE], "html")
    with pytest.raises(ValueError, match="a line of 1 cells"):
        render(("a", "b"), [("1",)])


def test_domains_the_decathlon_does_not_have():
    with pytest.raises(ValueError, match="'digits'"):
        decathlon_table([dataclasses.replace(WHOLE, accuracies={"digits": 99.0})])
