"""Time from the command to the first training step, and a full epoch, both through train.py.

    python benchmarks/start.py

The network has parallel adapters on frozen filters; the images are an embedded domain, decoded
before (it is in `config.data.cache`). Each of `--repeats` rounds takes in turn

- a start with an empty compilation cache, and one with the cache that it left: seconds from the
  start of the process to the first step's metrics, which wait for the step;
- a run of two epochs. The first has the compilation of the step in it; the second is what counts:
  from the first batch that is cut to the last step's metrics, while the first one's checkpoint is
  still being written. Evaluation follows each epoch and is in the seconds of the whole run only;
- as many bare steps as an epoch has: benchmarks/train.py's, of the same network and batch.

The rest of the run is what is left without the seconds to the first step and those of all other
steps, at the second epoch's speed: evaluations, tables, pictures and the end of the process.

The share is that of the second epoch's images a second in those of the bare steps, by round.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import figures
import machine
import numpy as np
import rows
from worker import Worker

ROOT = Path(__file__).parents[1]
COLUMNS = (
    *("row", "median", "least", "most", "unit", "n", "domain", "batch"),
    *("size", "width", "dtype", "device", "jax", "commit"),
)
KEY = ("row", "domain", "batch", "size", "width", "dtype")


class Runs:
    """Runs of train.py on one domain, under a folder; each has a workdir of its own."""

    def __init__(self, folder, arguments):
        self.folder, self.count, self.domain = folder, 0, arguments.domain
        self.settings = {
            "backbone.width": arguments.width,
            "backbone.dtype": arguments.dtype,
            "data.cache": folder / "images",
            "data.size": arguments.size,
            "data.resize": arguments.size * 9 // 8,
            "train.batch_size": arguments.batch,
        }
        other = "digits" if self.domain == "faces" else "faces"
        filters = {"domains": other, "train.steps": 1, "train.evals": 1}  # any filters will do
        process, metrics = self.start("scratch", "compiled", filters)
        self.finish(process)
        self.settings |= {"domains": self.domain, "init_from": metrics.parents[1]}
        self.first_step("compiled")  # decodes the images

    def start(self, recipe, compiled, changes):
        """Start a run with a folder of compiled programs; return its process and metrics file."""
        self.count += 1
        workdir, settings = self.folder / f"run{self.count}", {**self.settings, **changes}
        command = [sys.executable, "train.py", f"--config=configs/quickstart.py:{recipe}"]
        command += [f"--config.{key}={value}" for key, value in settings.items()]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(self.folder / compiled)}
        with open(self.folder / "log.txt", "w") as log:
            process = subprocess.Popen(
                [*command, f"--workdir={workdir}"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return process, workdir / "metrics" / f"{settings['domains']}.csv"

    def finish(self, process):
        if process.wait() != 0:
            raise RuntimeError((self.folder / "log.txt").read_text())

    def first_step(self, compiled):
        """Return the seconds to the first step; the run is stopped there."""
        begin = time.perf_counter()
        process, metrics = self.start("parallel", compiled, {"train.log_every": 1})
        while not figures.read(metrics):
            if process.poll() is not None:
                raise RuntimeError((self.folder / "log.txt").read_text())
            time.sleep(0.01)
        found = time.perf_counter() - begin
        process.kill()
        process.wait()
        return found

    def two_epochs(self):
        """Return images a second of a first and a second epoch, the run's seconds, the steps."""
        changes = {"train.steps": 0, "train.epochs": 2, "train.evals": 2, "train.log_every": 10**6}
        begin = time.perf_counter()
        process, metrics = self.start("parallel", "compiled", changes)
        self.finish(process)
        seconds = time.perf_counter() - begin
        first, second = figures.read(metrics.parents[1] / "speed" / metrics.name)
        steps = int(second["step"]) - int(first["step"])
        return float(first["images_per_second"]), float(second["images_per_second"]), seconds, steps


def bare_step(folder, arguments):
    """Start benchmarks/train.py's step, warmed up; return it and the machine's facts."""
    bare = Worker(sys.executable, "ours.py")
    facts = bare.ask(
        "setup",
        **rows.save_images(folder, arguments.batch, arguments.size),
        **rows.setup_of("train parallel"),
        width=arguments.width,
        classes=rows.CLASSES,
        dtype=arguments.dtype,
        weights=str(folder / "weights.npz"),
    )
    bare.ask("run", n=2)
    return bare, facts


def measure(folder, arguments):
    """Yield each round's figures by row, and the machine's facts."""
    runs = Runs(folder, arguments)
    bare, facts = bare_step(folder, arguments)
    for turn in range(arguments.repeats):
        cold, warm = (runs.first_step(f"compiled{turn}") for _ in range(2))
        first, second, seconds, steps = runs.two_epochs()
        alone = arguments.batch / np.mean(bare.ask("run", n=steps)["seconds"])
        rest = seconds - warm - (2 * steps - 1) * arguments.batch / second
        yield (
            {
                ("first step, nothing compiled before", "s"): cold,
                ("first step, compiled before", "s"): warm,
                (f"first epoch ({steps} steps), with compilation", "images/s"): first,
                (f"second epoch ({steps} steps)", "images/s"): second,
                (f"bare steps ({steps})", "images/s"): alone,
                ("share of the bare steps' speed in the epoch", "%"): 100 * second / alone,
                ("whole run, two epochs with evaluation", "s"): seconds,
                ("the rest of it: evaluations, tables, pictures", "s"): rest,
            },
            facts,
        )
    bare.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="surfaces", help="an embedded one")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "start.csv")
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    rounds = []
    shape = {key: getattr(arguments, key) for key in ("domain", "batch", "size", "width", "dtype")}
    with tempfile.TemporaryDirectory() as folder:
        for found, facts in measure(Path(folder), arguments):
            if not arguments.allow_dirty:
                machine.check_tree()  # train.py is started anew in every round
            rounds.append(found)
            lines = []
            for row, unit in found:
                median, least, most = figures.spread([it[row, unit] for it in rounds])
                spread = {"median": median, "least": least, "most": most, "n": len(rounds)}
                lines.append({"row": row, **spread, "unit": unit, **shape, **facts})
            figures.put(arguments.out, COLUMNS, KEY, lines, arguments.allow_dirty)
    for line in lines:
        print("{row:46} {median:>8} [{least}, {most}] {unit}, n = {n}".format(**line))


if __name__ == "__main__":
    main()
