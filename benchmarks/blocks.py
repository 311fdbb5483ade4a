"""The tables of README and docs, as markdown: each a function of rows of CSV files.

A figure is its median [least, most], or stands alone where it was taken once.
"""

import re

import figures
import numpy as np
import rows
import work
from cells import interval, mean_and_std, table
from small_blocks import compression, compression_by_domain

OURS, PEER = "radapt_jax", "PyTorch"
NETWORK = ("device", "dtype", "size", "width")
FOLDED = (rows.FOLDED, OURS)


def _over_peer(row):
    return (row, OURS), (row, PEER)


TARGETS = (  # what is divided, by what, and the ratio that is wanted at least
    ("parallel adapters over PyTorch", *_over_peer("train parallel"), 1.0),
    ("series adapters over PyTorch", *_over_peer("train series"), 1.0),
    ("finetuning over PyTorch", *_over_peer("train finetune"), 0.85),
    ("a head on kept features over PyTorch", (rows.KEPT, OURS), ("train linear", PEER), 3.0),
    ("inference without adapters over PyTorch", *_over_peer("infer backbone"), 1.0),
    ("inference with adapters over PyTorch", *_over_peer("infer parallel, unfolded"), 1.0),
    (
        "folded inference over PyTorch with adapters",
        *(FOLDED, ("infer parallel, unfolded", PEER), 1.3),
    ),
    ("folded inference over our backbone", FOLDED, ("infer backbone", OURS), 0.98),
    ("adapters step over finetuning step", ("train parallel", OURS), ("train finetune", OURS), 1.3),
)
DISTURBED = "†"
NO_FIGURE = "not measured"
NOT_WHOLE = "Not measured yet: there is no seed with all domains and methods."


def figure(row, digits=1, names=("median", "least", "most"), scale=1.0):
    """Return a row's figure with so many digits."""
    median, least, most = (f"{scale * float(row[name]):,.{digits}f}" for name in names)
    return median if row["n"] == "1" else f"{median} [{least}, {most}]"


def train(lines):
    """Ours and the peer by row and batch; a peer counts if it was measured at the same commit."""
    speeds, names = _speeds(lines), ("images_per_second", "least", "most")
    found = []
    for batch in _batches(lines):
        for row in dict.fromkeys(line["row"] for line in lines if int(line["batch"]) == batch):
            ours, peer = (speeds.get((row, who, batch)) for who in (OURS, PEER))
            if not (ratio := _ratio(ours, peer)):
                peer = None
            cells = [
                [_marked(it, figure(it, 1, names)), it["peak_gib"]] if it else ["", ""]
                for it in (ours, peer)
            ]
            (our_speed, our_peak), (peer_speed, peer_peak) = cells
            found.append([row, str(batch), our_speed, peer_speed, ratio, our_peak, peer_peak])
    head = ["row", "batch", "ours", "PyTorch", "ours / PyTorch", "GiB, ours", "GiB, PyTorch"]
    note = f"\n\n{DISTURBED}: other processes used more than a twentieth of the machine meanwhile."
    return table(head, found) + ("" if all(map(figures.was_quiet, lines)) else note)


def _marked(row, text):
    return text if figures.was_quiet(row) else f"{text} {DISTURBED}"


def against(*sheets):
    """How many times as fast as the peer ours is, by network and batch."""
    heads, columns = _networks(sheets)
    found = [
        [
            what,
            *(
                _ratio(_at(speeds, over, batch), _at(speeds, under, batch))
                for speeds, batch in columns
            ),
        ]
        for what, over, under, _ in TARGETS
        if under[1] == PEER
    ]
    return table(["times as fast", *heads], found)


def targets(lines, small_lines, start_lines, gpu_lines, gpu_roofline):
    """What was wanted at least, and what was found: at batch 32 and 128."""
    found = []
    for what, over, under, least in TARGETS:
        cells = []
        for speeds in map(_speeds, (lines, small_lines)):
            ratios = [_ratio(_at(speeds, over, it), _at(speeds, under, it)) for it in (32, 128)]
            cells.append(" / ".join(ratio or NO_FIGURE for ratio in ratios))
        found.append([what, f"{least}", *cells])
    share = [row for row in start_lines if row["unit"] == "%"]
    epoch = figure(share[0], 2, scale=0.01) if share else NO_FIGURE
    found.append(["an epoch through train.py over its bare steps", "0.95", epoch, ""])
    speeds, largest = _speeds(gpu_lines), 1024
    ratio = _ratio(*(speeds.get(("train parallel", who, largest)) for who in (OURS, PEER)))
    what = f"GPU, bfloat16, batch {largest}: {TARGETS[0][0]}"
    found.append([what, "1.3", ratio or NO_FIGURE, ""])
    shares = [
        row["share"]
        for row in gpu_roofline
        if (row["row"], row["batch"]) == ("train parallel", str(largest))
    ]
    found.append(["the same: share of the roofline", "0.5", *(shares or [NO_FIGURE]), ""])
    return table(["target", "at least", "width 1, 64 px", "width 0.25, 32 px"], found)


def roofline(lines):
    """The share of what the nearer ceiling allows, by row and batch."""
    figures.one_kind(lines, NETWORK)
    batches, shares = _batches(lines), {}
    for line in lines:
        memory = " (memory)" if line["bound"] == "memory" else ""
        shares[line["row"], int(line["batch"])] = f"{float(line['share']):.2f}{memory}"
    found = [
        [row, *(shares.get((row, batch), "") for batch in batches)]
        for row in dict.fromkeys(line["row"] for line in lines)
    ]
    flops, bandwidth = (
        " or ".join(dict.fromkeys(line[name] for line in lines))
        for name in ("tflops", "gbytes_per_second")
    )
    ceilings = f"Ceilings, medians: {flops} TFLOP/s and {bandwidth} GB/s."
    return table(["share", *(f"batch {it}" for it in batches)], found) + f"\n\n{ceilings}"


def start(lines):
    return table(
        ["", "median [least, most]", "unit"],
        [[row["row"], figure(row), row["unit"]] for row in lines],
    )


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
        *(train, against, targets, roofline, start, inputs, imagenet, many, serve),
        *(transfer, methods, compression, compression_by_domain),
    )
}


def _speeds(lines):
    """Return rows by their row, who and batch; all of one network on one device."""
    if lines:
        figures.one_kind(lines, NETWORK)
    return {(line["row"], line["who"], int(line["batch"])): line for line in lines}


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


def _at(speeds, place, batch):
    return speeds.get((*place, batch))


def _networks(sheets):
    """Return a heading and (speeds, batch) for each network and batch of some files."""
    heads, columns = [], []
    for lines in filter(None, sheets):
        _, _, size, width = figures.one_kind(lines, NETWORK)
        for batch in _batches(lines):
            heads.append(f"width {width.removesuffix('.0')}, {size} px, batch {batch}")
            columns.append((_speeds(lines), batch))
    return heads, columns


def _batches(lines):
    return sorted({int(line["batch"]) for line in lines})


def _ratio(over, under):
    """Return a ratio of two speeds; nothing where one is missing or of another commit."""
    if not over or not under or over["commit"] != under["commit"]:
        return ""
    return f"{float(over['images_per_second']) / float(under['images_per_second']):.2f}"
