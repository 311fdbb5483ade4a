"""Kills real runs of train.py at random moments, starts them again, and compares the ends.

python tests/faults.py --kills 20

A run that is killed and resumed must end with the shared weights, adapters, statistics, metrics and
results of one that was not, bit for bit. Moments are drawn from `--seed`; half of the kills wait
until something is being written.
"""

import argparse
import contextlib
import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = (
    *("--config.backbone.width=0.125", "--config.data.size=16", "--config.data.resize=18"),
    *("--config.train.batch_size=32", "--config.train.steps=60", "--config.train.evals=12"),
    "--config.train.log_every=7",
)
RECIPES = {  # what is run, and which finished run it starts from
    "scratch": ("configs/quickstart.py:scratch", None),
    "parallel": ("configs/quickstart.py:parallel", "scratch"),
    "compress": ("configs/quickstart.py:compress", "parallel"),
}
HOW = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
WRITING = ("**/*.orbax-checkpoint-tmp", "**/.*.new", "**/.*.old")
LONGEST = 600  # seconds that a start may take before it counts as hung


@dataclasses.dataclass
class Tally:
    """What held: kills by kind, those that hit a write, resumes, and runs that were compared."""

    kills: dict[str, int] = dataclasses.field(default_factory=dict)
    in_writes: int = 0
    resumes: int = 0
    compared: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {how}" for how, count in sorted(self.kills.items()))
        return (
            f"{sum(self.kills.values())} kills ({kinds}; {self.in_writes} while writing), "
            f"{self.resumes} resumes, {self.compared} runs bit-identical to an uninterrupted one"
        )


def command(recipe: str, workdir: Path, base: Path) -> list[str]:
    """Return the train.py command of a recipe; its cache is in the workdir too."""
    config, source = RECIPES[recipe]
    found = [sys.executable, "train.py", "--config", config, "--workdir", str(workdir), *SMALL]
    found += [f"--config.data.cache={workdir.parent / (workdir.name + '.cache')}"]
    return found + ([f"--config.init_from={base / source}"] if source else [])


def start(recipe: str, workdir: Path, base: Path, limit: int | None = None) -> subprocess.Popen:
    """Start a run; with `limit`, no file that it writes may be larger (512 bytes)."""
    limited = ["sh", "-c", f'ulimit -f {limit}; exec "$@"', "sh"] if limit else []
    return subprocess.Popen(
        [*limited, *command(recipe, workdir, base)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(recipe: str, workdir: Path, base: Path) -> str:
    """Run to the end; return what was printed."""
    run = start(recipe, workdir, base)
    told, _ = run.communicate(timeout=LONGEST)
    assert run.returncode == 0, told
    return told


def unfinished(workdir: Path) -> set[tuple[str, int]]:
    """Return what is being written, or was when a run was killed."""
    found = set()
    for pattern in WRITING:
        for path in workdir.parent.glob(f"{workdir.name}*/{pattern}"):
            with contextlib.suppress(FileNotFoundError):
                found.add((str(path), path.stat().st_ino))
    return found


def interrupt(
    run: subprocess.Popen, how: str, workdir: Path, after: float, in_write: bool, tally: Tally
) -> bool:
    """Kill a run after so many seconds, or at the first write after them; False: it had ended."""
    moment, before = time.monotonic() + after, unfinished(workdir)
    while run.poll() is None and time.monotonic() < moment:
        time.sleep(0.01)
    while in_write and run.poll() is None and not unfinished(workdir) - before:
        time.sleep(0.001)
    hit = bool(unfinished(workdir) - before)
    if run.poll() is None:
        run.send_signal(HOW[how])
    told, _ = run.communicate(timeout=LONGEST)
    if run.returncode == 0:
        return False
    expected = {-HOW[how], 128 + HOW[how]}  # before the handlers are there; and with them
    assert run.returncode in expected, (run.returncode, told)
    if run.returncode > 0:
        assert f"{HOW[how].name}: " in told, told
    tally.kills[how] = tally.kills.get(how, 0) + 1
    tally.in_writes += hit
    return True


def contents(workdir: Path) -> dict[str, object]:
    """Return all that must be equal: fingerprints of variables, metrics and results."""
    from radapt_jax import Family
    from radapt_jax.utils import trees

    family = Family.load(workdir)
    found: dict[str, object] = {
        f"variables of {name}": trees.fingerprint(family.variables(name)) for name in family
    }
    files = [*workdir.glob("metrics/*.csv"), *workdir.glob("**/results.*[!g]")]
    return found | {str(file.relative_to(workdir)): file.read_bytes() for file in files}


def compare(workdir: Path, whole: Path, tally: Tally) -> None:
    found, expected = contents(workdir), contents(whole)
    different = [
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    ]
    assert not different, f"{workdir} differs from {whole} in {sorted(different)}"
    assert not unfinished(workdir), "half-written files are cleaned"
    tally.compared += 1


def torture(
    recipe: str,
    base: Path,
    folder: Path,
    seconds: float,
    kills: int,
    draw: random.Random,
    tally: Tally,
) -> None:
    """Kill one run up to `kills` times, let it end, and compare it with `<base>/<recipe>`.

    One that ends before it is hit is compared too, and another is started.
    """
    hits = 0
    while not hits:
        workdir = folder / f"{recipe}-{tally.compared}"
        for _ in range(kills):
            how = draw.choices(list(HOW), weights=(2, 1, 1))[0]
            after, in_write = draw.uniform(0, 0.8 * seconds), draw.random() < 0.5
            run = start(recipe, workdir, base)
            tally.resumes += workdir.exists()
            if not interrupt(run, how, workdir, after, in_write, tally):
                break
            hits += 1
        finish(recipe, workdir, base)
        compare(workdir, base / recipe, tally)
        shutil.rmtree(workdir)


def full_disk(recipe: str, base: Path, folder: Path, tally: Tally) -> None:
    """Let writes fail from some size on; the run says so, and ends well when there is room."""
    for limit in (8, 128):
        workdir = folder / f"{recipe}-full-{limit}"
        run = start(recipe, workdir, base, limit)
        told, _ = run.communicate(timeout=LONGEST)
        assert run.returncode not in (0, None), told
        assert "File too large" in told or "No space" in told, told
        finish(recipe, workdir, base)
        compare(workdir, base / recipe, tally)


def whole(base: Path, recipes: Sequence[str]) -> dict[str, float]:
    """Run recipes without interruption, warm; return the seconds each takes."""
    took = {}
    for recipe in recipes:
        finish(recipe, base / recipe, base)  # fills the compilation cache
        shutil.rmtree(base / recipe)
        shutil.rmtree(base / f"{recipe}.cache")
        begun = time.monotonic()
        finish(recipe, base / recipe, base)
        took[recipe] = time.monotonic() - begun
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="at least so many")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, tally = random.Random(arguments.seed), Tally()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "whole"
        took = whole(base, list(RECIPES))
        for recipe, seconds in took.items():
            print(f"{recipe}: {seconds:.0f} s without interruption", flush=True)
        full_disk("scratch", base, Path(folder), tally)
        while sum(tally.kills.values()) < arguments.kills:
            for recipe in RECIPES:
                torture(recipe, base, Path(folder), took[recipe], 4, draw, tally)
                print(tally, flush=True)


if __name__ == "__main__":
    main()
