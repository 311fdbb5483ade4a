"""Trains what a study's file lacks, and adds a row as soon as it is measured.

A row is a training. Those of the first seed try each learning rate of the method; the one with the
best top-1 on validation images is that of all seeds. Test images are seen by the training with that
rate alone, when it has ended: rows of other rates have no `test_top1`.
"""

import functools
import time

import figures

import radapt_jax as rj
from transfer.images import read

PLACE = ("backbone", "domain", "method", "seed")
KEY = (*PLACE, "learning_rate")
COLUMNS = (
    *KEY,
    *("size", "steps", "batch", "train_images", "val_top1", "test_top1", "minutes"),
    *("device", "jax", "commit"),
)


def measure(study, out, cache, facts, allow_dirty=False):
    """Write the rows of a study that a file lacks.

    Args:
      study: what is compared.
      out: the CSV file.
      cache: folder for decoded images.
      facts: device, version and commit, for every row.
      allow_dirty: write rows of an edited tree too.
    """
    families = {name: functools.cache(make) for name, make in study.backbones.items()}
    domains = {
        name: functools.cache(functools.partial(read, study, name, cache)) for name in study.domains
    }
    for place in study.places():
        if chosen(figures.read(out), place) is not None:
            continue
        first = chosen(figures.read(out), {**place, "seed": study.seeds[0]})
        rates = study.methods[place["method"]].rates if first is None else (first,)
        family, images = families[place["backbone"]](), domains[place["domain"]]()
        for line in trained(study, place, family, images, rates):
            figures.put(out, COLUMNS, KEY, [{**line, **facts}], allow_dirty)
            print(
                ", ".join(
                    f"{name} {line[name]}" for name in (*KEY, "val_top1", "test_top1", "minutes")
                ),
                flush=True,
            )


def chosen(rows, place):
    """Return the learning rate of the row with test images at a place; None: there is none."""
    for row in rows:
        if row["test_top1"] and all(row[name] == str(place[name]) for name in PLACE):
            return float(row["learning_rate"])
    return None


def trained(study, place, family, images, rates):
    """Yield a row for each rate, without test images, and the best one once more with them."""
    found = []
    for rate in rates:
        start = time.perf_counter()
        own = rj.Family(family.shared, [family[name] for name in family])
        top1 = fit(study, place, own, images, rate)
        line = {
            **place,
            "learning_rate": rate,
            **{"size": study.size, "steps": study.steps, "batch": study.batch_size},
            "train_images": len(images.splits["train"][1]),
            "val_top1": f"{top1:.2f}",
            "test_top1": "",
            "minutes": f"{(time.perf_counter() - start) / 60:.2f}",
        }
        found.append((top1, line, own))
        yield line
    _, line, own = max(found, key=lambda it: it[0])
    scores = rj.evaluate(own, place["domain"], *images.splits["test"])
    yield {**line, "test_top1": f"{scores.top1:.2f}"}


def fit(study, place, family, images, rate):
    """Train a domain of a family, and return its top-1 on validation images."""
    method = study.methods[place["method"]]
    options = rj.TrainOptions(
        **{"steps": study.steps, "batch_size": study.batch_size, "evals": 1},
        **{"learning_rate": rate, "schedule": "cosine"},
        decay=method.decay,
        seed=place["seed"],
    )
    history = rj.fit(
        family,
        place["domain"],
        *images.splits["train"],
        adapter=method.adapter,
        domain=images.facts,
        options=options,
        validation=images.splits["val"],
        method=place["method"],
        progress=False,
    )
    return history.of("val")[-1].top1
