"""Images a second from archive to device: decoding, the cache, augmentation, and resident memory.

    python benchmarks/input.py

Decoding is of the package's own photographs, cut to patches of 96x72 pixels and stored as JPEG;
reading is of a cache of 72x72 images (and of mixed shapes); ImageNet is stood in for by a sparse
file of the size that its 1,232,167 training images take at 72x72 pixels (19 GB, which read as
zeros and take no room on disk). Rates are the median of the repeats, with the least and the most.
"""

import argparse
import io
import itertools
import resource
import tempfile
import time
from pathlib import Path

import figures
import jax
import machine
import numpy as np
import PIL
import rows
from PIL import Image

from radapt_jax.data import augment, batches, build_cache
from radapt_jax.data.cache import MappedPixels, Split, load_split
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.domain import Domain, Resizing
from radapt_jax.data.pixels import DevicePixels, HostPixels
from radapt_jax.data.sources.embedded import PICTURES, picture_of
from radapt_jax.data.sources.source import Example, Source

ROOT = Path(__file__).parents[1]
BATCH = 128
COLUMNS = ("row", "images_per_second", "least", "most", "n", "peak_gib", "device", "jax", "commit")


def photographs(amount, shapes):
    """Return JPEG patches of the package's photographs, as examples of one class."""
    places = np.random.default_rng(0)
    pictures = [picture_of(name) for name in PICTURES]
    pictures = [picture for picture in pictures if min(picture.shape[:2]) >= 300]
    examples = []
    for index in range(amount):
        height, width = shapes[index % len(shapes)]
        picture = pictures[index % len(pictures)]
        top, left = (int(places.integers(0, side - 300 + 1)) for side in picture.shape[:2])
        patch = Image.fromarray(picture[top : top + 300, left : left + 300])
        encoded = io.BytesIO()
        patch.resize((width, height)).save(encoded, "JPEG", quality=90)
        examples.append(Example(f"patch {index}", 0, encoded.getvalue()))
    return examples


def source_of(name, examples):
    return Source(name, ("patch",), {"train": lambda: examples}, name)


def domain_of(size=64, resize=72):
    facts = DECATHLON["imagenet12"]
    return Domain("imagenet12", ("a",) * 1000, facts.mean, facts.std, size=size, resize=resize)


def rates(run, images, repeats):
    """Return images a second of each of several runs, after one that does not count."""
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(images / (time.perf_counter() - start))
    return found


def decoding(folder, repeats):
    """Build caches; the second row leaves out the start of the processes, as a large set does."""
    examples = photographs(20_000, [(72, 96)])
    count = itertools.count()

    def build():
        place = Path(folder) / f"decode{next(count)}"
        load_split(source_of("decode", examples), "train", Resizing(72), place)

    yield "decode and build a cache, 20,000 JPEG of 96x72", rates(build, len(examples), repeats)
    steady = []
    for _ in range(repeats):
        parts = build_cache._decoded(iter(examples), Resizing(72))
        done, start, seen = 0, None, 0
        for part in parts:
            done += len(part.labels)
            if start is None and done >= 10_000:
                start, seen = time.perf_counter(), done
        steady.append((done - seen) / (time.perf_counter() - start))
    yield "decode, the second 10,000 of them", steady


def reading(folder, name, shapes, repeats, steps=100):
    """Cut training batches from a cache, and augment them on the device."""
    split = load_split(
        source_of(name, photographs(4000, shapes)), "train", Resizing(72), Path(folder)
    )
    domain, device = domain_of(), jax.devices()
    mean, std, size = domain.mean, domain.std, domain.size
    augmented = jax.jit(
        lambda batch, resident: augment.network_input(batch, mean, std, resident, size)
    )

    def cut(pixels):
        for step in range(steps):
            batches.train_batch(pixels, domain, BATCH, 0, step, 1)

    def through(pixels):
        for step in range(steps):
            batch = batches.train_batch(pixels, domain, BATCH, 0, step, 1)
            flat = {key: value[0] for key, value in batch.items()}
            found = augmented(flat, pixels.resident)
        found.block_until_ready()

    host = HostPixels(split, domain.size)
    resident = DevicePixels(split, lambda tree: jax.device_put(tree, device[0]), device)
    amount = BATCH * steps
    yield (
        f"{name}: cut batches of {BATCH} from the cache",
        rates(lambda: cut(host), amount, repeats),
    )
    yield (
        f"{name}: the same, mirrored and normalised on the device",
        rates(lambda: through(host), amount, repeats),
    )
    yield (
        f"{name}: kept on the device, cut and augmented there",
        rates(lambda: through(resident), amount, repeats),
    )


def imagenet(folder, repeats):
    """Read random batches of a cache of ImageNet's size; sparse, so that it takes no disk."""
    place = Path(folder) / "imagenet"
    place.mkdir()
    size = 72 * 72 * 3
    with open(place / "pixels.u8", "wb") as file:
        file.truncate(rows.IMAGENET * size)
    split = Split(
        MappedPixels(place / "pixels.u8"),
        np.arange(rows.IMAGENET, dtype=np.int64) * size,
        np.full((rows.IMAGENET, 2), 72, np.int32),
        np.zeros(rows.IMAGENET, np.int32),
        np.full(rows.IMAGENET, -1, np.int64),
        np.zeros(rows.IMAGENET, np.uint64),
        np.zeros((rows.IMAGENET, 2, 3)),
        (),
        np.arange(rows.IMAGENET),
    )
    pixels, domain, steps = HostPixels(split, 64), domain_of(), itertools.count()

    def run():
        for step in itertools.islice(steps, 1000):
            batches.train_batch(pixels, domain, BATCH, 0, step, 1)

    yield (
        f"imagenet12, {rows.IMAGENET:,} images: cut from a sparse cache",
        rates(run, 1000 * BATCH, repeats),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "input.csv")
    parser.add_argument("--only", choices=("decoding", "reading", "imagenet"))
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    facts = machine.facts()
    mixed = [(72, 72), (72, 108), (144, 72), (72, 96)]
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "imagenet": lambda: imagenet(folder, arguments.repeats),
            "reading": lambda: (
                *reading(folder, "one shape", [(72, 72)], arguments.repeats),
                *reading(folder, "mixed shapes", mixed, arguments.repeats),
            ),
            "decoding": lambda: decoding(folder, arguments.repeats),
        }
        for part, run in parts.items():
            if arguments.only not in (None, part):
                continue
            for row, found in run():
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
                median = float(np.median(found))
                print(f"{row:66} {median:9,.0f} [{min(found):,.0f}, {max(found):,.0f}] images/s")
                line = {
                    "row": row,
                    "images_per_second": round(median),
                    "least": round(min(found)),
                    "most": round(max(found)),
                    "n": len(found),
                    "peak_gib": round(peak, 2),
                    **facts,
                }
                figures.put(arguments.out, COLUMNS, ("row",), [line], arguments.allow_dirty)
    print(f"Pillow {PIL.__version__}; written to {arguments.out}")


if __name__ == "__main__":
    main()
