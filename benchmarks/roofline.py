"""How near each of our rows comes to what the device could do: benchmarks/roofline.csv.

    python benchmarks/roofline.py

The model: a row cannot take less time than its multiply-adds at the speed of a large matrix
product, nor less than its bytes at the speed of a large copy (benchmarks/work.py counts both), so

    time allowed = max(2 multiply-adds / FLOP/s, bytes / bytes/s)
    share        = time allowed / time measured

Both ceilings are measured here, in the row's dtype: the median of `--repeats`. The times are those
of our rows in benchmarks/train.csv, of this device; a row keeps their commit. Winograd's
convolutions do fewer multiplications than are counted, so that a share above 1 is possible.
"""

import argparse
import time
from pathlib import Path

import figures
import jax
import jax.numpy as jnp
import machine
import numpy as np
import rows
import work

ROOT = Path(__file__).parents[1]
COLUMNS = (
    *("row", "batch", "multiply_adds", "bytes", "tflops", "gbytes_per_second", "n", "bound"),
    *("allowed_images_per_second", "images_per_second", "share"),
    *("size", "width", "dtype", "device", "jax", "commit"),
)
KEY = ("row", "batch", "dtype", "size", "width")


def rates(run, amount, repeats):
    """Return how much of `amount` a second each run does, after two that do not count."""
    found = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        run()
        found.append(amount / (time.perf_counter() - start))
    return found[2:]


def product_rates(side, dtype, repeats):
    """Return the FLOP/s of a square matrix product."""
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    return rates(lambda: product(matrix, matrix).block_until_ready(), 2 * side**3, repeats)


def copy_rates(amount, repeats):
    """Return the bytes/s of reading and writing an array of `amount` bytes.

    It is negated in place: pages that the system has yet to hand out would be measured otherwise.
    """
    held = jnp.ones(amount // 4, jnp.float32)
    negate = jax.jit(jnp.negative, donate_argnums=0)

    def run():
        nonlocal held
        held = negate(held).block_until_ready()

    return rates(run, 2 * amount, repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, default=ROOT / "benchmarks" / "train.csv")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "roofline.csv")
    parser.add_argument("--repeats", type=int, default=20)
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    facts = machine.facts()
    ours = [
        row
        for row in figures.read(arguments.train)
        if row["who"] == "radapt_jax"
        and row["device"] == facts["device"]
        and row["row"] != rows.KEPT  # most of its time is a share of other work
    ]
    if not ours:
        raise SystemExit(f"error: {arguments.train} has no row of ours on {facts['device']}.")
    figures.refuse_edited(ours, arguments.allow_dirty)
    on_cpu = jax.default_backend() == "cpu"
    copied = copy_rates(2**28 if on_cpu else 2**31, arguments.repeats)
    print("copy: {} GB/s [{}, {}]".format(*figures.spread(np.array(copied) / 1e9)))
    ceilings = {}
    for dtype in dict.fromkeys(row["dtype"] for row in ours):
        ceilings[dtype] = product_rates(2048 if on_cpu else 16384, dtype, arguments.repeats)
        spread = figures.spread(np.array(ceilings[dtype]) / 1e12, 3)
        print("{} product: {} TFLOP/s [{}, {}]".format(dtype, *spread))
    lines = [
        {
            **line_of(row, float(np.median(ceilings[row["dtype"]])), float(np.median(copied))),
            **{"n": arguments.repeats, **facts, "commit": row["commit"]},
        }
        for row in ours
    ]
    figures.put(arguments.out, COLUMNS, KEY, lines, arguments.allow_dirty)
    for line in lines:
        print(
            "{row:26} {batch:>5} {images_per_second:>9} of {allowed_images_per_second:>9} images/s "
            "({bound}): {share}".format(**line)
        )


def line_of(row, flops, bandwidth):
    """Return the line of a row of train.csv under two ceilings, FLOP/s and bytes/s."""
    width, size, batch = float(row["width"]), int(row["size"]), int(row["batch"])
    adds = work.multiply_adds(width, size)[row["row"]]
    moved = work.bytes_moved(width, size, batch, jnp.dtype(row["dtype"]).itemsize)[row["row"]]
    seconds = {"compute": 2 * adds / flops, "memory": moved / bandwidth}
    bound = max(seconds, key=seconds.get)
    return {
        **{key: row[key] for key in ("row", "batch", "size", "width", "dtype", "device")},
        **{"multiply_adds": adds, "bytes": round(moved), "bound": bound},
        "tflops": f"{flops / 1e12:.3f}",
        "gbytes_per_second": f"{bandwidth / 1e9:.1f}",
        "allowed_images_per_second": f"{1 / seconds[bound]:.1f}",
        "images_per_second": row["images_per_second"],
        "share": f"{seconds[bound] * float(row['images_per_second']):.3f}",
    }


if __name__ == "__main__":
    main()
