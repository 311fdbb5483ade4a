"""The tables of speed: training, inference, what is wanted of them, and where the time goes."""

import figures
import rows
from cells import figure, marked, note_of, table

COLD = "first step, nothing compiled before"
WARM = "first step, compiled before"
SHARE = "share of the bare steps' speed in the epoch"
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
STARTS = (  # rows of start.csv, what they are called, what was wanted, digits and scale
    (SHARE, "an epoch through train.py over its bare steps", "0.95", 2, 0.01),
    (WARM, "seconds to the first step, compiled before", "at most 5", 1, 1.0),
    (COLD, "seconds to the first step, nothing compiled", "at most 8", 1, 1.0),
)
NO_FIGURE = "not measured"


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
                [marked(it, figure(it, 1, names)), it["peak_gib"]] if it else ["", ""]
                for it in (ours, peer)
            ]
            (our_speed, our_peak), (peer_speed, peer_peak) = cells
            found.append([row, str(batch), our_speed, peer_speed, ratio, our_peak, peer_peak])
    head = ["row", "batch", "ours", "PyTorch", "ours / PyTorch", "GiB, ours", "GiB, PyTorch"]
    return table(head, found) + note_of(lines)


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


def targets(lines, small_lines, start_lines, small_start, gpu_lines, gpu_roofline):
    """What was wanted at least, and what was found: at batch 32 and 128."""
    found = []
    for what, over, under, least in TARGETS:
        cells = []
        for speeds in map(_speeds, (lines, small_lines)):
            ratios = [_ratio(_at(speeds, over, it), _at(speeds, under, it)) for it in (32, 128)]
            cells.append(" / ".join(ratio or NO_FIGURE for ratio in ratios))
        found.append([what, f"{least}", *cells])
    for name, what, least, digits, scale in STARTS:
        cells = [
            next((figure(it, digits, scale=scale) for it in sheet if it["row"] == name), NO_FIGURE)
            for sheet in (start_lines, small_start)
        ]
        found.append([what, least, *cells])
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


def shares(lines):
    """What a step's time goes to: milliseconds and share of each kind of work, by row."""
    found = {}
    for line in lines:
        found.setdefault((line["width"], line["size"], line["row"]), []).append(line)
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    cells = []
    for (width, size, row), own in found.items():
        times = {it["kind"]: it for it in own}
        whole = sum(float(it["milliseconds"]) for it in own)
        shown = [_share(times[kind]) for kind in kinds]
        network = f"{row}, width {width.removesuffix('.0')}, {size} px"
        cells.append([network, f"{whole:,.0f}", *shown])
    return table(["row", "ms a step", *kinds], cells)


def _share(line):
    return f"{float(line['milliseconds']):,.0f} ({float(line['share']):.0%})"


def _speeds(lines):
    """Return rows by their row, who and batch; all of one network on one device."""
    if lines:
        figures.one_kind(lines, NETWORK)
    return {(line["row"], line["who"], int(line["batch"])): line for line in lines}


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
