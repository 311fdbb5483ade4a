"""What a step's time goes to, by row: benchmarks/shares.csv.

    python benchmarks/shares.py

For every training row and inference of both networks, a process traces `--steps` steps with JAX's
profiler and tells for each kind of work its share of the time (benchmarks/traced.py):
convolutions, with what Winograd's algorithm and parts of a batch do around them; products, of
adapters and heads; the arithmetic of norms, rectifiers, shortcuts and the optimiser; what only
copies; and dispatch, where no operation runs. Milliseconds are that share of the median step
without the profiler. CPUs only: elsewhere operations have other names.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import figures
import machine
import numpy as np
import quiet
import rows
from worker import Worker

ROOT = Path(__file__).parents[1]
NETWORKS = ((1.0, 64), (0.25, 32))  # width and pixels
ROWS = ("train parallel", "train series", "train finetune", "train linear", "infer backbone")
COLUMNS = (
    *("row", "kind", "share", "milliseconds", "n", "batch"),
    *("size", "width", "dtype", "device", "jax", "commit", "others"),
)
KEY = ("row", "kind", "batch", "size", "width", "dtype")


def measured(row, width, size, arguments):
    """Return a line for each kind of work in a row's step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder / 'programs'}"
        flags += " --xla_dump_hlo_as_text"
        own = {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # none is written else
        traced = Worker(sys.executable, "traced.py", **own)
        facts = traced.ask(
            "setup",
            **rows.save_images(folder, arguments.batch, size),
            **rows.setup_of(row),
            **{"width": width, "classes": rows.CLASSES, "dtype": "float32"},
            weights=str(folder / "weights.npz"),
        )
        traced.ask("run", n=2)
        watch = quiet.Watch([traced.pid])
        seconds = np.median(traced.ask("run", n=arguments.steps)["seconds"])
        shares = traced.ask("shares", n=arguments.steps)
        others = watch.others()
        traced.close()
    return [
        {
            **{"row": row, "kind": kind, "n": arguments.steps, "batch": arguments.batch},
            **{"share": f"{share:.4f}", "milliseconds": f"{1000 * seconds * share:.2f}"},
            **{"size": size, "width": width, "dtype": "float32", **facts},
            "others": quiet.told(others),
        }
        for kind, share in shares.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--width", type=float, help="of one network alone; with --size")
    parser.add_argument("--size", type=int)
    parser.add_argument("--only", choices=ROWS, action="append", help="a row; may be repeated")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "shares.csv")
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    one = arguments.width is not None
    for width, size in ((arguments.width, arguments.size),) if one else NETWORKS:
        for row in arguments.only or ROWS:
            quiet.wait()
            lines = measured(row, width, size, arguments)
            shares = ", ".join(f"{it['kind']} {float(it['share']):.0%}" for it in lines)
            print(f"{row}, width {width:g}: {shares}", flush=True)
            figures.put(arguments.out, COLUMNS, KEY, lines, arguments.allow_dirty)


if __name__ == "__main__":
    main()
