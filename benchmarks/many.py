"""What a domain costs on disk, in memory and in time, where one backbone has a thousand.

    python benchmarks/many.py

One domain with parallel adapters and 100 classes is saved, and linked under a thousand names. Then
the family is opened, and domains are used: for the first time, when they are read from disk, and
again. Memory is that of a fresh process, resident, by the number of domains it holds. A thousand
domains that are rounded to 4 bits are then held at once, packed, and widened when they are used.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import figures
import machine
import numpy as np

from radapt_jax import Family, Member, ModelSpec, Parallel, ResNet26, Shared, initial_variables
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.domain import Domain
from radapt_jax.family import adapter_file

ROOT = Path(__file__).parents[1]
COLUMNS = ("what", "unit", "median", "least", "most", "n", "width", "device", "jax", "commit")
KEY = ("what", "width")
CLASSES, DOMAINS = 100, 1000


def save_many(folder, width):
    """Save a family of one domain, and link it under many names."""
    spec = ModelSpec(ResNet26(width), Parallel(init="he_normal"))
    variables = initial_variables(spec, CLASSES, seed=0)
    family = Family(Shared(variables.pop("params"), ResNet26(width)))
    facts = DECATHLON["cifar100"]
    domain = Domain("first", tuple(map(str, range(CLASSES))), facts.mean, facts.std)
    family.add("first", Member(domain, spec, variables, method="parallel"))
    family.save(folder)
    first = folder / "domains" / "first"
    card = json.loads((first / "card.json").read_text())
    for index in range(DOMAINS):
        new = first.with_name(f"d{index:04}")
        shutil.copytree(first, new, copy_function=os.link)
        (new / "card.json").unlink()
        card["domain"]["name"] = new.name
        (new / "card.json").write_text(json.dumps(card))
    return sum(path.stat().st_size for path in first.rglob("*") if path.is_file())


def seconds_of(run, repeats):
    found = []
    for index in range(repeats):
        start = time.perf_counter()
        run(index)
        found.append(time.perf_counter() - start)
    return found


HOLDING = """
family = Family.load(folder, at_most=held)
for name in family.domains[:held]:
    family.predict(image, domain=name)
"""
PACKED = """
family = Family.load(folder, [first])
for index in range(held):
    family.add(f"r{index}", adapter_file.read(path))
    family.predict(image, domain=f"r{index}")
"""


def resident(script, folder, held, first="", path=""):
    """Return the GiB of a process that has so many domains, after a prediction with each."""
    before = (
        "import sys, numpy as np\n"
        "from radapt_jax import Family\n"
        "from radapt_jax.family import adapter_file\n"
        "folder, first, path, held = *sys.argv[1:4], int(sys.argv[4])\n"
        "image = np.zeros((1, 64, 64, 3), np.uint8)\n"
    )
    after = (
        "lines = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(lines['VmRSS'].split()[0])\n"
    )
    command = [sys.executable, "-c", before + script + after]
    command += [str(folder), first, str(path), str(held)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(found.stdout) / 2**20


def measure(folder, width, repeats):
    """Yield what was measured: name, unit, values."""
    yield "a domain on disk", "MB", [save_many(folder, width) / 1e6]
    opened = seconds_of(lambda _: Family.load(folder, at_most=8), 5)
    yield f"opening {DOMAINS} domains", "s", opened
    family = Family.load(folder, at_most=8)
    names = family.domains
    image = np.zeros((1, 64, 64, 3), np.uint8)
    family.predict(image, domain=names[0])  # compiles

    def first(index):
        family.predict(image, domain=names[index + 1])

    def again(index):
        family.predict(image, domain=names[repeats - index % 8])

    yield "one image, domain read from disk", "ms", [1e3 * it for it in seconds_of(first, repeats)]
    yield "one image, domain in memory", "ms", [1e3 * it for it in seconds_of(again, repeats)]
    yield from of_four_bits(Path(folder), names, image, repeats)
    for held in (8, 64, 128):
        yield (
            f"memory of a process that holds {held} domains",
            "GiB",
            [resident(HOLDING, folder, held)],
        )


def of_four_bits(folder, names, image, repeats):
    """Yield what rounded domains cost on disk, in time and in the memory of a process."""
    family, path = Family.load(folder, names[:1]), folder / "int4.safetensors"
    family.save_domain(names[0], path, bits=4)
    yield "the file of an int4 domain", "MB", [path.stat().st_size / 1e6]
    member = adapter_file.read(path)
    for index in range(2 * repeats):
        family.add(f"r{index}", member)
    family.predict(image, domain="r0")  # compiles

    def first(index):
        family.predict(image, domain=f"r{index + 1}")

    yield (
        "one image, int4 domain to be widened",
        "ms",
        [1e3 * it for it in seconds_of(first, repeats)],
    )
    yield (
        "one image, int4 domain that is widened",
        "ms",
        [1e3 * it for it in seconds_of(lambda _: first(0), repeats)],
    )
    taken = resident(PACKED, folder, DOMAINS, names[0], path)
    yield f"memory of a process that holds {DOMAINS} int4 domains", "GiB", [taken]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "many.csv")
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    facts = {"width": arguments.width, **machine.facts()}
    with tempfile.TemporaryDirectory() as folder:
        for what, unit, values in measure(Path(folder), arguments.width, arguments.repeats):
            median, least, most = figures.spread(values, 3)
            print(f"{what:48} {median} [{least}, {most}] {unit}, n = {len(values)}", flush=True)
            line = {"what": what, "unit": unit, "median": median, "least": least, "most": most}
            line |= {"n": len(values), **facts}
            figures.put(arguments.out, COLUMNS, KEY, [line], arguments.allow_dirty)


if __name__ == "__main__":
    main()
