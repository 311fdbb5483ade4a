"""Restore families from disk and evaluate their domains.

radapt eval --workdir runs/parallel
radapt eval --workdir runs/parallel --domains cifar100 --split val --crops 10

Runs on the Visual Decathlon also get the paper's table 1; several runs share one:

radapt eval --workdir runs/decathlon/parallel,runs/decathlon/linear --format latex
radapt eval --workdir runs/decathlon/parallel --submission results.json
radapt eval --workdir runs/decathlon/parallel --split test --labels decathlon_labels_test.zip
"""

from typing import Any

from absl import flags

from radapt_jax.data.views import CROPS
from radapt_jax.decathlon import runs
from radapt_jax.decathlon.table import run_tables
from radapt_jax.evaluation.evaluate import Answers
from radapt_jax.models.spec import DTYPES
from radapt_jax.report.page import Judged, check_page, judge, write_page
from radapt_jax.report.render import STYLES
from radapt_jax.utils.checks import names

_WORKDIR = flags.DEFINE_string("workdir", None, "finished runs, comma-separated", required=True)
_DOMAINS = flags.DEFINE_string("domains", "", "comma-separated; default: all")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "images to evaluate on")
_CROPS = flags.DEFINE_enum("crops", "1", list(map(str, CROPS)), "views of an image, averaged")
_LABELS = flags.DEFINE_string(
    "labels", None, "folder or zip of <domain>_test.json: score test images"
)
_SUBMISSION = flags.DEFINE_string("submission", None, "write the decathlon's answers to this file")
_REPORT = flags.DEFINE_string("report", None, "also write the page of the runs, an HTML file")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the images are now, if they moved")
_CACHE = flags.DEFINE_string("cache", "~/.cache/radapt_jax", "decoded images")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "images a step", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", list(DTYPES), "of the computation")
_FORMAT = flags.DEFINE_enum("format", "text", list(STYLES), "of the tables")
_PUBLISHED = flags.DEFINE_bool("published", False, "put all published results into table 1")


def main(_: list[str]) -> None:
    options: dict[str, Any] = {
        "cache_dir": _CACHE.value,
        "data_dir": _DATA_DIR.value,
        "batch_size": _BATCH_SIZE.value,
        "dtype": DTYPES[_DTYPE.value],
        "crops": int(_CROPS.value),
    }
    workdirs, domains = names(_WORKDIR.value), names(_DOMAINS.value)
    judged: dict[str, list[Judged]] = {}

    def keep(workdir: str, answers: Answers) -> None:
        judged.setdefault(workdir, []).append(judge(answers))

    if _REPORT.value:
        check_page(_REPORT.value)
    labels, submission = _LABELS.value, _SUBMISSION.value
    answered = bool(labels or submission)
    if answered:
        if _SPLIT.value != "test":
            raise ValueError(f"labels and submission are of test; found --split {_SPLIT.value}.")
        found = runs.answer(workdirs, domains, labels=labels, submission=submission, **options)
    else:
        see = keep if _REPORT.value else None
        found = runs.evaluate(workdirs, domains, split=_SPLIT.value, see=see, **options)
    if found:
        print(run_tables(found, _FORMAT.value, all_published=_PUBLISHED.value))
    if _REPORT.value:
        path = write_page(
            workdirs,
            _REPORT.value,
            cache_dir=_CACHE.value,
            data_dir=_DATA_DIR.value,
            judged=None if answered else [judged.get(it, []) for it in workdirs],
        )
        print(f"{path}: the page of the runs")
    runs.check_evaluated(found)
