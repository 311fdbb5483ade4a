"""Restore families from disk and evaluate their domains.

python eval.py --workdir runs/parallel
python eval.py --workdir runs/parallel --domains cifar100 --split val --crops 10

Runs on the Visual Decathlon also get the paper's table 1; several runs share one:

python eval.py --workdir runs/decathlon/parallel,runs/decathlon/linear --format latex
python eval.py --workdir runs/decathlon/parallel --submission results.json
python eval.py --workdir runs/decathlon/parallel --split test --labels decathlon_labels_test.zip
"""

from typing import Any

from absl import flags

from radapt_jax import startup
from radapt_jax.data.views import CROPS
from radapt_jax.decathlon import submission
from radapt_jax.decathlon.table import run_tables
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.family.family import Family
from radapt_jax.models.spec import DTYPES
from radapt_jax.report.render import STYLES
from radapt_jax.utils.checks import names
from radapt_jax.utils.files import located

_WORKDIR = flags.DEFINE_string("workdir", None, "finished runs, comma-separated", required=True)
_DOMAINS = flags.DEFINE_string("domains", "", "comma-separated; default: all")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "images to evaluate on")
_CROPS = flags.DEFINE_enum("crops", "1", list(map(str, CROPS)), "views of an image, averaged")
_LABELS = flags.DEFINE_string(
    "labels", None, "folder or zip of <domain>_test.json: score test images"
)
_SUBMISSION = flags.DEFINE_string("submission", None, "write the decathlon's answers to this file")
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
    if (_LABELS.value or _SUBMISSION.value) and _SPLIT.value != "test":
        raise ValueError(f"labels and submission are of test; found --split {_SPLIT.value}.")
    if _SUBMISSION.value and len(workdirs) > 1:
        raise ValueError(f"a submission is of one run; found {len(workdirs)} in --workdir.")
    runs = {}
    for workdir in workdirs:
        if not (_LABELS.value or _SUBMISSION.value):
            wanted = domains or None
            family = Family.load(workdir, wanted)
            runs[workdir] = evaluate_family(family, domains=wanted, split=_SPLIT.value, **options)
            continue
        family = Family.load(workdir)
        answers = submission.answers(family, domains, **options)
        if _SUBMISSION.value:
            submission.write_submission(answers, located(_SUBMISSION.value))
            print(f"{_SUBMISSION.value}: {sum(map(len, answers.values())):,} images.")
        if _LABELS.value:
            runs[workdir] = submission.score_answers(
                family, answers, _LABELS.value, options["crops"]
            )
    if runs:
        print(run_tables(runs, _FORMAT.value, all_published=_PUBLISHED.value))
    for workdir, rows in runs.items():
        if all(row.top1 is None for row in rows):
            why = "none of its domains has images here" if rows else "it holds no domains"
            raise ValueError(f"nothing could be evaluated of {workdir}: {why}.")


if __name__ == "__main__":
    startup.run(main)
