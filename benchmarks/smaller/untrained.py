"""Measures each way to make domains smaller without training: as it is, and with new statistics."""

import time
from collections.abc import Mapping

import figures
import numpy as np

import radapt_jax as rj
from radapt_jax.compress.moments import moments
from radapt_jax.compress.which import alphas_of
from radapt_jax.data.cache import Split
from radapt_jax.data.load import load_splits, load_test
from radapt_jax.evaluation.evaluate import open_source
from radapt_jax.evaluation.statistics import renewed
from smaller.small import WAYS, as_dense, bytes_of

KEY = ("seed", "way", "training", "domain")
COLUMNS = (
    *KEY,
    *("val_top1", "test_top1", "divergence", "bytes", "head_bytes", "parameters", "shared"),
    *("steps", "minutes", "device", "jax", "commit"),
)
AS_IT_IS, STATISTICS = "none", "statistics"
DIVERGED_ON = 500  # images of test


def images_of(family, cache, data):
    """Return the splits of every domain with adapters, decoded."""
    found: dict[str, Mapping[str, Split]] = {}
    for name in alphas_of(family):
        spec, source = open_source(family[name], str(data))
        splits, _ = load_splits(spec, source, cache, family[name].record)
        found[name] = {**splits, "test": load_test(spec, source, cache)}
    return found


def whole(split, domain):
    """Return the images of a split as `predict` takes them: the centre."""
    size = domain.size
    images = [split.image(at) for at in range(len(split))]
    cut = [it[(it.shape[0] - size) // 2 :, (it.shape[1] - size) // 2 :] for it in images]
    return np.stack([it[:size, :size] for it in cut])


def measure(dense, images, seed, out, facts, allow_dirty):
    """Add the rows of a seed that a file lacks."""
    there = {tuple(row[name] for name in KEY[:3]) for row in figures.read(out)}
    wanted = [way for way in WAYS if (str(seed), way, STATISTICS) not in there]
    if not wanted:
        return
    found = {name: moments(dense, name, splits["train"]) for name, splits in images.items()}
    pixels = {
        name: {it: whole(splits[it], dense[name].domain) for it in ("val", "test")}
        for name, splits in images.items()
    }
    told = {
        name: dense.predict(own["test"][:DIVERGED_ON], domain=name) for name, own in pixels.items()
    }
    for way in wanted:
        start = time.perf_counter()
        small = WAYS[way].apply(dense, found)
        plain = as_dense(dense, small)
        for training in (AS_IT_IS, STATISTICS):
            if training == STATISTICS:
                for name in images:
                    plain.add(name, renewed(plain, name, images[name]["train"]))
            lines = [
                {
                    **dict(zip(KEY, (seed, way, training, name), strict=True)),
                    **scores(plain, name, images[name], pixels[name], told[name]),
                    **size(small, name),
                    "steps": 0,
                    "minutes": f"{(time.perf_counter() - start) / 60:.2f}",
                    **facts,
                }
                for name in images
            ]
            figures.put(out, COLUMNS, KEY, lines, allow_dirty)
            mean = np.mean([float(line["test_top1"]) for line in lines])
            print(f"seed {seed}, {way}, {training}: {mean:.2f}", flush=True)


def scores(family, name, splits, pixels, told):
    """Return top-1 on val and test, and KL(dense || small) on some images of test, in nats."""
    top1, likely = {}, {}
    for split, array in pixels.items():
        likely[split] = family.predict(array, domain=name)
        top1[split] = 100 * (likely[split].argmax(1) == splits[split].targets).mean()
    ours = np.maximum(likely["test"][: len(told)], 1e-30)
    apart = told * (np.log(np.maximum(told, 1e-30)) - np.log(ours))
    return {
        "val_top1": f"{top1['val']:.3f}",
        "test_top1": f"{top1['test']:.3f}",
        "divergence": f"{apart.sum(1).mean():.4f}",
    }


def size(small: rj.Family, name):
    """Return what a domain takes: bytes of its variables, and parameters without the head."""
    own, head = bytes_of(small[name])
    return {
        "bytes": own,
        "head_bytes": head,
        "parameters": small[name].parameters(head=False),
        "shared": small.shared.basis_parameters(),
    }
