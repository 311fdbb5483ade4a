"""Restore a family from disk and evaluate its domains.

python eval.py --workdir runs/parallel
python eval.py --workdir runs/parallel --domains cifar100 --split val
"""

from absl import flags

from radapt_jax import report, startup
from radapt_jax.evaluate import evaluate_family
from radapt_jax.family import Family
from radapt_jax.settings import DTYPES, names

_WORKDIR = flags.DEFINE_string("workdir", None, "a finished run", required=True)
_DOMAINS = flags.DEFINE_string("domains", "", "comma-separated; default: all")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "images to evaluate on")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the images are now, if they moved")
_CACHE = flags.DEFINE_string("cache", "~/.cache/radapt_jax", "decoded images")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "images a step", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", list(DTYPES), "of the computation")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "print the table in Markdown")


def main(_: list[str]) -> None:
    rows = evaluate_family(
        Family.load(_WORKDIR.value, names(_DOMAINS.value) or None),
        split=_SPLIT.value,
        cache_dir=_CACHE.value,
        data_dir=_DATA_DIR.value,
        batch_size=_BATCH_SIZE.value,
        dtype=DTYPES[_DTYPE.value],
    )
    print(report.markdown(rows) if _MARKDOWN.value else report.text(rows))


if __name__ == "__main__":
    startup.run(main)
