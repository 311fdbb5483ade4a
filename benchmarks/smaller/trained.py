"""Measures ways to make domains smaller after fine-tuning, beside dense adapters trained as long.

All are fine-tuned with the same rate, which is chosen on validation images of the first seed. Test
images are looked at with that rate alone: rows of others have no `test_top1`.
"""

import json
import time

import figures
import numpy as np

import radapt_jax as rj
from radapt_jax.compress.which import alphas_of
from smaller.untrained import COLUMNS, KEY, size

EPOCHS = 4
RATES = (0.1, 0.03, 0.01)
CHOSEN_WITH = "joint alternating, K = C/2, distilled"
JOINT = {"kind": "joint", "fit": "alternating"}
WAYS = {
    CHOSEN_WITH: {**JOINT, "distill": True},
    "dense": {"kind": "parallel"},
    "int4": {"kind": "parallel", "bits": 4},
    "int3, distilled": {"kind": "parallel", "bits": 3, "distill": True},
    "joint alternating, K = C/2, int4, distilled": {**JOINT, "bits": 4, "distill": True},
    "joint alternating, K = C/2, int2, distilled": {**JOINT, "bits": 2, "distill": True},
}


def measure(runs, seed, out, facts, allow_dirty):
    """Add the rows of a seed that a file lacks; those of the first seed choose the rate."""
    for rate in RATES:
        if seed == 0:
            add(runs, CHOSEN_WITH, seed, rate, False, out, facts, allow_dirty)
    best = best_rate(figures.read(out))
    for way in WAYS:
        add(runs, way, seed, best, True, out, facts, allow_dirty)


def best_rate(rows):
    """Return the rate with the highest mean top-1 on validation images, of the first seed."""
    found = {
        rate: np.mean(
            [
                float(row["val_top1"])
                for row in rows
                if (row["way"], row["seed"]) == (CHOSEN_WITH, "0") and row["training"] == str(rate)
            ]
        )
        for rate in RATES
    }
    return max(found, key=found.__getitem__)


def add(runs, way, seed, rate, tested, out, facts, allow_dirty):
    """Fine-tune all domains in a way, if that was not done, and add a row for each."""
    there = [
        row
        for row in figures.read(out)
        if (row["way"], row["seed"], row["training"]) == (way, str(seed), str(rate))
    ]
    if there and (not tested or there[0]["test_top1"]):
        return
    start = time.perf_counter()
    workdir = runs.smaller(way, WAYS[way], seed, rate, EPOCHS)
    family = rj.Family.load(workdir)
    results = json.loads((workdir / "results.json").read_text())
    top1 = {row["domain"]: row["top1"] for row in results}
    names = list(alphas_of(rj.Family.load(runs.dense(seed))))
    lines = [
        {
            **dict(zip(KEY, (seed, way, rate, name), strict=True)),
            "val_top1": f"{family[name].results['val']:.3f}",
            "test_top1": f"{top1[name]:.3f}" if tested else "",
            **size(family, name),
            "steps": int(family[name].results["step"]),
            "minutes": f"{(time.perf_counter() - start) / 60:.2f}",
            **facts,
        }
        for name in names
    ]
    figures.put(out, COLUMNS, KEY, lines, allow_dirty)
    mean = np.mean([float(line["val_top1"]) for line in lines])
    print(f"seed {seed}, {way}, rate {rate}: {mean:.2f} on validation images", flush=True)
