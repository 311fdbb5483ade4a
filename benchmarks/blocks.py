"""The tables of README and docs, as markdown: each a function of rows of CSV files.

A figure is its median [least, most], or stands alone where it was taken once.
"""

import re

import figures
import numpy as np
import rows
import work
from cells import figure, interval, marked, mean_and_std, note_of, table
from small_blocks import compression, compression_by_domain
from speed_blocks import against, roofline, shares, start, targets, train
from study_blocks import (
    study,
    study_by_domain,
    study_headline,
    study_of_shares,
    study_original,
    study_recipes,
)

NOT_WHOLE = "Not measured yet: there is no seed with all domains and methods."


def inputs(lines):
    names = ("images_per_second", "least", "most")
    return table(
        ["", "images a second", "GiB resident at most"],
        [[row["row"], figure(row, 0, names), row["peak_gib"]] for row in lines],
    )


def imagenet(lines):
    """What the rates mean for a set of ImageNet's size."""
    by_row = {row["row"].split(",")[0]: row for row in lines}
    decoding, cutting = by_row["decode"], by_row["imagenet12"]
    minutes = rows.IMAGENET / float(decoding["images_per_second"]) / 60
    rate = f"{int(decoding['images_per_second']):,} images a second from JPEG of 96x72"
    adds = work.multiply_adds(1.0, 64)["train scratch"]
    operations = 120 * rows.IMAGENET * 2 * adds
    return table(
        ["", ""],
        [
            ["decoding once", f"{minutes:.1f} minutes, at {rate}"],
            ["memory of the host", f"{cutting['peak_gib']} GiB with a cache of that size"],
            [
                "arithmetic",
                f"{adds / 1e9:.3f} G multiply-adds an image: 120 epochs are {operations:.1e} "
                f"floating-point operations, {operations / 1e13 / 3600:.0f} hours at 10 TFLOP/s",
            ],
        ],
    )


def many(lines):
    """A domain's costs, and what a thousand would take."""
    figures.one_kind(lines, ("device", "width"))
    digits = {"MB": 2, "s": 2, "ms": 0, "GiB": 2}
    found = [
        [row["what"], f"{figure(row, digits[row['unit']])} {row['unit']}", row["n"]]
        for row in lines
    ]
    disk = next(float(row["median"]) for row in lines if row["unit"] == "MB")
    held = [
        (int(re.search(r"\d+", row["what"])[0]), float(row["median"]))
        for row in lines
        if row["unit"] == "GiB" and "int4" not in row["what"]
    ]
    (few, least), (most_held, most) = min(held), max(held)
    each = (most - least) / (most_held - few)
    found.append(["from these: a thousand domains on disk", f"{disk:.1f} GB", ""])
    found.append(["from these: memory of a domain that is held", f"{each * 1024:.1f} MiB", ""])
    thousand = least + (1000 - few) * each
    found.append(["from these: memory with a thousand held", f"{thousand:.1f} GiB", ""])
    return table(["", "median [least, most]", "n"], found)


def serve(*sheets):
    """A column for each network; single products are left to the files."""
    networks = [figures.one_kind(sheet, ("width", "size", "batch")) for sheet in sheets if sheet]
    sheets = [{row["what"]: row for row in sheet} for sheet in sheets if sheet]
    shown = [what for what in sheets[0] if "product" not in what]
    shown = [what for what in shown if all(what in sheet for sheet in sheets)]
    found = []
    for what in shown:
        n = " or ".join(dict.fromkeys(sheet[what]["n"] for sheet in sheets))
        cells = [figure(sheet[what], 1, ("median", "min", "max")) for sheet in sheets]
        found.append([what, n, *cells])
    ratios = {"folded over backbone": ("parallel, folded", "backbone without adapters")}
    for what in shown:
        domains, _, how = what.partition(": ")
        if how == "mixed batch (gathered)":
            ratios[f"{domains}: mixed batch over loop"] = what, f"{domains}: loop over domains"
    for ratio, names in ratios.items():
        medians = [[float(sheet[what]["median"]) for what in names] for sheet in sheets]
        found.append([ratio, "", *(f"{over / under:.2f}" for over, under in medians)])
    heads = [f"width {float(width):g}, {size} px, batch {batch}" for width, size, batch in networks]
    return table(["milliseconds, median [min, max]", "n", *heads], found)


def service(lines):
    """Each way of serving under load, by the number of domains and of connections."""
    figures.one_kind(lines, ("width", "size"))
    speed = ["images a second", "p50, ms", "p99, ms", "GiB"]
    head = ["", "domains", "connections", *speed, "answers", "wrong", "swaps"]
    found = []
    for line in lines:
        rate = figure(line, 0, ("per_second", "least", "most")) if line["per_second"] else ""
        gib = f"{float(line['gib']):.2f}" if line["gib"] else ""
        took = (f"{float(line[it]):.1f}" for it in ("p50_ms", "p99_ms"))
        counts = (f"{int(line[it]):,}" for it in ("requests", "wrong", "swaps"))
        of = (marked(line, line["row"]), line["domains"], line["connections"])
        found.append([*of, rate, *took, gib, *counts])
    return table(head, found) + note_of(lines)


def transfer(lines):
    """Test top-1 by backbone and domain, and the gain of adapters on finetuning, paired by seed."""
    if not figures.whole_seeds(lines):
        return NOT_WHOLE
    found = []
    for backbone in dict.fromkeys(line["backbone"] for line in lines):
        by_domain = _by_domain([line for line in lines if line["backbone"] == backbone], lines)
        for domain, top1 in by_domain.items():
            adapter = next(name for name in ("parallel", "low_rank") if name in top1)
            gain = top1[adapter] - top1["finetune"]
            found.append([backbone, domain, *map(mean_and_std, top1.values()), interval(gain)])
    return table(["backbone", "domain", *top1, f"{adapter} - finetune"], found)


def methods(lines):
    """Test top-1 by method and domain, and what a domain takes: parameters, its file, training."""
    if not (seeds := figures.whole_seeds(lines)):
        return NOT_WHOLE
    by_domain, found = _by_domain(lines, lines), []
    for method in dict.fromkeys(line["method"] for line in lines):
        own = [it for it in lines if it["method"] == method and it["seed"] in seeds]
        own = [it for it in own if it["test_top1"]]
        (parameters,) = figures.one_kind(own, ("parameters",))
        kilobytes = np.mean([int(it["bytes"]) for it in own]) / 1000
        speed = np.median([float(it["images_per_second"]) for it in own])
        top1 = [mean_and_std(it[method]) for it in by_domain.values()]
        found.append([method, *top1, f"{int(parameters):,}", f"{kilobytes:,.0f}", f"{speed:,.0f}"])
    return table(["method", *by_domain, "parameters", "kB of a file", "images a second"], found)


BLOCKS = {
    function.__name__: function
    for function in (
        *(train, against, targets, roofline, shares, start, inputs, imagenet, many, serve),
        service,
        *(transfer, methods, compression, compression_by_domain),
        *(study, study_headline, study_by_domain, study_of_shares, study_original),
        study_recipes,
    )
}


def _by_domain(lines, study):
    """Return top-1 by seed (an array), by method and domain; below the domains, their mean."""
    seeds = figures.whole_seeds(study)
    found = {}
    for line in lines:
        if line["test_top1"] and line["seed"] in seeds:
            methods = found.setdefault(line["domain"], {})
            methods.setdefault(line["method"], {})[line["seed"]] = float(line["test_top1"])
    arrays = {
        domain: {name: np.array([it[seed] for seed in seeds]) for name, it in methods.items()}
        for domain, methods in found.items()
    }
    first, *_ = arrays.values()
    mean = {name: np.mean([it[name] for it in arrays.values()], axis=0) for name in first}
    return {**arrays, "mean": mean}
