"""Images a second of training and inference, ours and PyTorch's in turn on the same machine.

    python benchmarks/train.py --peer PYTHON

PYTHON is an interpreter that has PyTorch (it may be this one); without it ours is measured alone.
Each row: warm-up, of which the peer's fastest variant goes on, then `--repeats` turns of ours and
of the peer; the median, the least and the most. In a turn a step counts after others of 0.4 s:
PyTorch's threads still spin for 0.2 s after their turn, and cores that rested need some time to get
up to speed (a forward pass of a small network takes twice as long after a pause of 0.3 s).
Images are uniform noise, the same for both. Ours includes the transfer, mirroring and normalising
of uint8 images; the peer has its input ready. Both inherit the environment, and with it settings of
the allocator.

"train linear, kept features" is a training of 20 epochs on 8 views of each image, whose features
are computed once: the time of a step has its share of that.

Training from scratch computes finetuning's step: measured once, written as both. Each row has
processes of its own; `peak_gib` is the most memory that one held on a CPU, libraries and
compilation included, and the most that was allocated on a GPU.

Before a row the machine has to be quiet; where others used more than a twentieth of it meanwhile
(benchmarks/quiet.py), the row is measured again, three times at most. `others` is their share, and
tables mark what was measured beside them.

A row is written when it is measured. With `--only` and `--batches`, rows of the file with the same
row, batch, dtype, size and width are replaced, and others stay.
"""

import argparse
import functools
import sys
import tempfile
from pathlib import Path

import figures
import machine
import numpy as np
import quiet
import rows
from worker import Worker

ROOT = Path(__file__).parents[1]
COLUMNS = (
    *("row", "who", "variant", "batch", "images_per_second", "least", "most", "n"),
    *("size", "width", "dtype", "device", "versions", "commit", "peak_gib", "others"),
)
WARM = 0.4  # seconds of steps before the one that counts
KEY = ("row", "who", "batch", "dtype", "size", "width")


def set_up(ours, row, images, weights, arguments):
    """Let ours build a row's network and save its weights; return what it says of the machine."""
    shape = {"width": arguments.width, "classes": rows.CLASSES, "dtype": arguments.dtype}
    return ours.ask("setup", **images, **rows.setup_of(row), **shape, weights=weights)


def set_up_peer(peer, row, images, weights, variant, arguments):
    """Let the peer build the same on our weights; return what it says of itself."""
    return peer.ask(
        "setup",
        **images,
        **variant,
        weights=weights,
        kind=rows.setup_of(row)["kind"],
        method=row.removeprefix("train "),
        width=arguments.width,
        classes=rows.CLASSES,
        bfloat16=arguments.dtype == "bfloat16",
    )


def check_peer(folder, arguments):
    """Compare logits of eight images with the peer's, for every kind of adapter."""
    backend = machine.backend()
    images, weights = rows.save_images(folder, 8, arguments.size), str(folder / "weights.npz")
    for row in ("infer backbone", "infer parallel, unfolded", "train series"):
        ours, peer = Worker(sys.executable, "ours.py"), Worker(arguments.peer, "peer_torch.py")
        set_up(ours, row, images, weights, arguments)
        theirs = set_up_peer(peer, row, images, weights, variants_of(arguments)[0], arguments)
        check_peer_device(theirs["device"], backend)
        for train in (False, True):
            found, theirs = (
                np.array(it.ask("logits", train=train)["logits"]) for it in (ours, peer)
            )
            np.testing.assert_allclose(found, theirs, atol=1e-3 * np.abs(theirs).max())
        ours.close()
        peer.close()


def check_peer_device(found, backend):
    """End where the peer would run on another kind of device than ours."""
    expected = {"gpu": "cuda"}.get(backend, backend)
    if found != expected:
        raise SystemExit(
            f"error: found PyTorch running on {found}; expected {expected}, as JAX runs on "
            f"{backend}.\nGive --peer a Python whose PyTorch is built for it, or leave it out."
        )


def variants_of(arguments):
    """Return how the peer may run a row; none without a peer."""
    if not arguments.peer:
        return []
    plain = [{"channels_last": last, "compile": False} for last in (True, False)]
    return [*plain, {"channels_last": True, "compile": True}] if arguments.compile else plain


def fastest(peers):
    """Return the place of the peer that is fastest after a warm-up; close the others."""
    trials = []
    for peer in peers:
        peer.ask("run", n=1)
        trials.append(min(peer.ask("run", n=2)["seconds"]))
    best = int(np.argmin(trials))
    for peer in peers[:best] + peers[best + 1 :]:
        peer.close()
    return best


def measured(row, batch, folder, arguments):
    """Return a line of ours and one of the peer, if there is one: steps taken in turn."""
    images, weights = rows.save_images(folder, batch, arguments.size), str(folder / "weights.npz")
    variants = [] if row in (rows.FOLDED, rows.KEPT) else variants_of(arguments)
    ours = Worker(sys.executable, "ours.py")
    peers = [Worker(arguments.peer, "peer_torch.py") for _ in variants]  # all start at once
    facts = set_up(ours, row, images, weights, arguments)
    runs = {"radapt_jax": (ours, "", f"jax {facts.pop('jax')}")}
    ours.ask("run", n=2)
    if peers:
        for peer, variant in zip(peers, variants, strict=True):
            theirs = set_up_peer(peer, row, images, weights, variant, arguments)
        best = fastest(peers)
        name = " ".join(key for key, value in variants[best].items() if value) or "plain"
        runs["PyTorch"] = (peers[best], name, f"torch {theirs['torch']}")
    seconds = {who: [] for who in runs}
    watch = quiet.Watch([worker.pid for worker, *_ in runs.values()])
    for _ in range(arguments.repeats):
        for who, (worker, *_) in runs.items():
            seconds[who] += worker.ask("run", n=1, warm=WARM)["seconds"]
    others = watch.others()
    lines = []
    for who, (worker, variant, versions) in runs.items():
        median, least, most = figures.spread(batch / np.array(seconds[who]))
        lines.append(
            {
                **{"row": row, "who": who, "variant": variant, "batch": batch},
                **{"images_per_second": median, "least": least, "most": most},
                **{"n": arguments.repeats, "size": arguments.size, "width": arguments.width},
                **{"dtype": arguments.dtype, **facts, "versions": versions},
                "peak_gib": f"{worker.ask('peak')['bytes'] / 2**30:.2f}",
                "others": quiet.told(others),
            }
        )
        worker.close()
    return lines


def rows_of(text):
    """Read a list of rows, separated by semicolons."""
    found = text.split(";")
    if unknown := set(found) - set(rows.ROWS):
        raise argparse.ArgumentTypeError(f"found {sorted(unknown)}; expected some of {rows.ROWS}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python that has PyTorch")
    parser.add_argument("--compile", action="store_true", help="also the peer's torch.compile")
    parser.add_argument("--batches", default="1,32,128")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", type=rows_of, default=rows.ROWS, help="rows, between semicolons")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "train.csv")
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.peer:
            check_peer(folder, arguments)
        for batch in map(int, arguments.batches.split(",")):
            for row in arguments.only:
                lines = quiet.undisturbed(
                    functools.partial(measured, row, batch, folder, arguments), figures.others_of
                )
                for line in lines:
                    print(
                        "{row:26} {batch:5} {who:10} {images_per_second:>9} [{least}, {most}] "
                        "images/s, {peak_gib} GiB {variant}".format(**line),
                        flush=True,
                    )
                if row in rows.SAME:
                    lines += [{**line, "row": rows.SAME[row]} for line in lines]
                figures.put(arguments.out, COLUMNS, KEY, lines, arguments.allow_dirty)


if __name__ == "__main__":
    main()
