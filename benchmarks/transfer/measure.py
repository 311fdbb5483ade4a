"""Trains what a study's file lacks, and adds a row as soon as it is measured.

A row is a training. Those of the first seed try each learning rate of the method; the one with the
best top-1 on validation images is that of all seeds. Test images are seen by the training with that
rate alone, when it has ended: rows of other rates have no `test_top1`.

`learning_rate` is what was chosen, of the option that the method names. `parameters` are a domain's
own without its head, `bytes` those of its file, with its head. `images_per_second` is the median
over parts of the training; the first part, which waits for the compiler, is left out.
"""

import functools
import statistics
import tempfile
import time
from pathlib import Path

import figures

import radapt_jax as rj
from radapt_jax.family import adapter_file
from transfer.images import read

KEY = (*figures.TRAINED, "learning_rate")
PARTS = 8  # of a training, in each of which its speed is measured
COLUMNS = (
    *KEY,
    *("size", "steps", "batch", "train_images", "val_top1", "test_top1", "minutes"),
    *("parameters", "bytes", "images_per_second"),
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

    Raises:
      ValueError: the file has rows of another size, number of steps or batch size.
    """
    check_setting(figures.read(out), study, out)
    families = {name: functools.cache(make) for name, make in study.backbones.items()}
    domains = {
        name: functools.cache(functools.partial(read, study, name, cache)) for name in study.domains
    }
    for place in study.places():
        if chosen(figures.read(out), place) is not None:
            continue
        tried = {"seed": study.seeds[0], "domain": study.tuned_on or place["domain"]}
        first = chosen(figures.read(out), {**place, **tried})
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


def setting(study):
    """Return the columns that all rows of a study share."""
    return {"size": study.size, "steps": study.steps, "batch": study.batch_size}


def check_setting(rows, study, out):
    for row in rows:
        found = {name: int(row[name]) for name in setting(study)}
        if found != setting(study):
            raise ValueError(
                f"{out}: found a row of {found}; expected those of this study, {setting(study)}. "
                "Write this one to another file (--out), or delete that one."
            )


def chosen(rows, place):
    """Return the learning rate of the row with test images at a place; None: there is none."""
    for row in rows:
        if row["test_top1"] and all(row[name] == str(place[name]) for name in figures.TRAINED):
            return float(row["learning_rate"])
    return None


def trained(study, place, family, images, rates):
    """Yield a row for each rate, without test images, and the best one once more with them."""
    found = []
    for rate in rates:
        start = time.perf_counter()
        own = rj.Family(family.shared, [family[name] for name in family])
        top1, speed = fit(study, place, own, images, rate)
        line = {
            **place,
            "learning_rate": rate,
            **setting(study),
            "train_images": len(images.splits["train"][1]),
            "val_top1": f"{top1:.2f}",
            "test_top1": "",
            "minutes": f"{(time.perf_counter() - start) / 60:.2f}",
            "parameters": own[place["domain"]].parameters(head=False),
            "bytes": adapter_file.size(own[place["domain"]]),
            "images_per_second": f"{speed:.1f}",
        }
        found.append((top1, line, own))
        yield line
    _, line, own = max(found, key=lambda it: it[0])
    scores = rj.evaluate(own, place["domain"], *images.splits["test"])
    yield {**line, "test_top1": f"{scores.top1:.2f}"}


def fit(study, place, family, images, rate):
    """Train a domain of a family; return its top-1 on validation images, and images a second."""
    method = study.methods[place["method"]]
    options = rj.TrainOptions(
        **{"steps": study.steps, "batch_size": study.batch_size, "evals": 1},
        **{"log_every": max(study.steps // PARTS, 1), "schedule": "cosine"},
        **{**method.options, method.tuned: rate},
        decay=method.decay,
        seed=place["seed"],
    )
    with tempfile.TemporaryDirectory() as workdir:
        history = rj.fit(
            family,
            place["domain"],
            *images.splits["train"],
            adapter=method.adapter,
            placement=method.placement,
            domain=images.facts,
            options=options,
            validation=images.splits["val"],
            method=place["method"],
            progress=False,
            workdir=workdir,
        )
        _, *parts = figures.read(Path(workdir, "speed", f"{place['domain']}.csv"))
    speed = statistics.median(float(it["images_per_second"]) for it in parts)
    return history.of("val")[-1].top1, speed
