"""Serving: folded against unfolded, swaps, mixed batches against the loop, file sizes.

    python benchmarks/serve.py

Random weights (speed does not depend on them), real image sizes. Every figure is the median of
`--repeats` runs after warm-up, in milliseconds unless the row says otherwise, with the smallest and
the largest beside it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import figures
import flax
import jax
import jax.numpy as jnp
import machine
import numpy as np
from random_family import make_family

import radapt_jax as ra
from radapt_jax import Family, Member, ModelSpec, ResNet26, initial_variables
from radapt_jax.family.predict import probabilities, stack, statistics

COUNTS = (1, 3, 9)
CLASSES = 100
ROOT = Path(__file__).parents[1]
COLUMNS = (
    *("what", "median", "min", "max", "n", "width", "size", "batch"),
    *("device", "jax", "flax", "commit"),
)
KEY = ("what", "width", "size", "batch")


def timed(run, repeats):
    """Return the sorted times of `run` in milliseconds, warm-up apart."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)


def grouped(run_one, names, images):
    """The loop that a mixed batch replaces: one call for each domain."""
    found = np.zeros((len(images), CLASSES), np.float32)
    for name in dict.fromkeys(names):
        rows = np.flatnonzero([it == name for it in names])
        found[rows] = run_one(name, images[rows])
    return found


def folded_kernels(family, images, names):
    """Every image through its own folded network: a grouped convolution in every layer."""
    domains = list(dict.fromkeys(names))
    bank = stack([ra.fold(family[name].spec, family.variables(name)) for name in domains])
    which = np.array([domains.index(name) for name in names])
    model = ModelSpec(family.shared.backbone).build(CLASSES)
    mean, std = statistics(family[domains[0]].domain)

    @jax.jit
    def run(bank, which, images):
        def one(variables, image):
            return probabilities(model, variables, image[None], mean, std)[0]

        return jax.vmap(one)(jax.tree.map(lambda leaf: leaf[which], bank), images)

    return lambda: run(bank, which, images)


def adapter_products(width, count, batch, size):
    """The adapters' product alone, of a middle layer: gathered matrices and ragged_dot."""
    channels, pixels = round(128 * width), (size // 4) ** 2
    stream = np.random.default_rng(0)
    x = jnp.asarray(stream.normal(size=(batch, pixels, channels)).astype(np.float32))
    alphas = jnp.asarray(stream.normal(size=(count, channels, channels)).astype(np.float32))
    which = jnp.asarray(np.sort(np.arange(batch) % count))  # sorted, as ragged_dot wants it
    sizes = jnp.bincount(which, length=count) * pixels
    gathered = jax.jit(lambda x, alphas: jnp.einsum("bpc,bcd->bpd", x, alphas[which]))
    ragged = jax.jit(lambda x, alphas: jax.lax.ragged_dot(x.reshape(-1, channels), alphas, sizes))
    np.testing.assert_allclose(
        gathered(x, alphas).reshape(-1, channels), ragged(x, alphas), atol=1e-3
    )
    return {"gathered": lambda: gathered(x, alphas), "ragged_dot": lambda: ragged(x, alphas)}


def file_sizes(family):
    small = ra.compress_family(family, "joint", ra.rank_rule("uniform"))
    with tempfile.TemporaryDirectory() as folder:
        for what, it in (("dense", family), ("joint, K = C/2", small)):
            it.save_domain("d0", Path(folder) / "file")
            yield f"domain file, {what} (kB)", (Path(folder) / "file").stat().st_size / 1000
        family.export("d0", Path(folder) / "file")
        yield "exported StableHLO (kB)", (Path(folder) / "file").stat().st_size / 1000


def measure(arguments):
    """Yield (row, sorted times or one size)."""
    family = make_family(max(COUNTS), arguments.width, arguments.size, CLASSES)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    repeats = arguments.repeats

    plain = Family(family.shared)
    spec = ModelSpec(ResNet26(arguments.width))
    variables = initial_variables(spec, CLASSES, 0)
    own = {name: variables[name] for name in ("adapters", "batch_stats")}
    plain.add("plain", Member(family["d0"].domain, spec, own))
    yield "backbone without adapters", timed(lambda: plain.predict(images, domain="plain"), repeats)
    yield "parallel, unfolded", timed(lambda: family.predict(images, domain="d0"), repeats)
    folded, thin = family.fold("d0"), family.fold("d0", fold_norm=True)
    yield "parallel, folded", timed(lambda: folded.predict(images), repeats)
    yield "parallel, folded with norms", timed(lambda: thin.predict(images), repeats)

    one = images[:1]
    for name in family:
        family.predict(one, domain=name)  # all banks on the device
    same = timed(lambda: family.predict(one, domain="d0"), 5 * repeats)
    turns = iter([f"d{index % 9}" for index in range(100 * repeats)])
    swapping = timed(lambda: family.predict(one, domain=next(turns)), 5 * repeats)
    yield "one image, same domain", same
    yield "one image, another domain each time", swapping
    yield "fold a domain", timed(lambda: family.fold("d0").weights.variables, repeats)

    for count in COUNTS:
        names = [f"d{index % count}" for index in range(arguments.batch)]
        by_loop = lambda names=names: grouped(  # noqa: E731
            lambda name, part: family.predict(part, domain=name), names, images
        )
        mixed = lambda names=names: family.predict(images, domains=names)  # noqa: E731
        np.testing.assert_allclose(mixed(), by_loop(), atol=1e-5)
        yield f"{count} domains: loop over domains", timed(by_loop, repeats)
        yield f"{count} domains: mixed batch (gathered)", timed(mixed, repeats)
        kernels = folded_kernels(family, images, names)
        yield f"{count} domains: folded kernels by image", timed(kernels, max(repeats // 3, 3))
        products = adapter_products(arguments.width, count, arguments.batch, arguments.size)
        for what, run in products.items():
            yield f"{count} domains: one adapter's product, {what}", timed(run, 3 * repeats)
    for what, size in file_sizes(family):
        yield what, [size]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "serve.csv")
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    facts = {
        "width": arguments.width,
        "size": arguments.size,
        "batch": arguments.batch,
        **machine.facts(),
        "flax": flax.__version__,
    }
    for what, times in measure(arguments):
        median = times[len(times) // 2]
        line = {
            "what": what,
            "median": f"{median:.3f}",
            "min": f"{times[0]:.3f}",
            "max": f"{times[-1]:.3f}",
            "n": len(times),
            **facts,
        }
        figures.put(arguments.out, COLUMNS, KEY, [line], arguments.allow_dirty)
        print(f"{what:50} {median:10.2f}   [{times[0]:.2f}, {times[-1]:.2f}]  n={len(times)}")


if __name__ == "__main__":
    main()
