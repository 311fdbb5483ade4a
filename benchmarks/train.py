"""Images a second of training and inference, ours and PyTorch's in turn on the same machine.

    python benchmarks/train.py --peer PYTHON

PYTHON is an interpreter that has PyTorch (it may be this one); without it ours is measured alone.
Each row: warm-up, of which the peer's fastest variant goes on, then `--repeats` rounds of one step
of ours and one of the peer, in turn; the median, the least and the most. Images are uniform noise,
the same for both. Ours includes the transfer, mirroring and normalising of uint8 images; the peer
has its input ready. Both inherit the environment, and with it settings of the allocator.
"""

import argparse
import csv
import json
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import machine
import numpy as np

from radapt_jax import ModelSpec, initial_variables, optim, trees
from radapt_jax.domains import DECATHLON, Domain
from radapt_jax.fuse import fold
from radapt_jax.steps import make_train_step
from radapt_jax.update import State

ROOT = Path(__file__).parents[1]
CLASSES = 100
DECAY = {"filters": None, "adapters": 5e-4, "norms": 5e-4, "head": 5e-4}
METHODS = {  # kind of adapter, and what is decayed otherwise than above
    "parallel": ("parallel", {}),
    "series": ("series", {}),
    "finetune": ("none", {"filters": 5e-4}),
    "norm": ("none", {"adapters": None}),
    "linear": ("none", {"adapters": None, "norms": None}),
}
INFERENCE = {"backbone": "none", "parallel, unfolded": "parallel", "parallel, folded": "parallel"}
COLUMNS = (
    *("row", "who", "variant", "batch", "images_per_second", "least", "most", "n"),
    *("size", "width", "dtype", "device", "versions", "commit"),
)


def trained(method, batch, images, labels, arguments):
    """Return a function that takes one training step and waits for it."""
    kind, changes = METHODS[method]
    spec = ModelSpec(width=arguments.width, adapter=kind, adapter_init="he_normal")
    start = initial_variables(spec, CLASSES, seed=0)
    decay = {**DECAY, **changes}
    names = optim.labels({key: start[key] for key in ("params", "adapters")}, decay)
    optimizer = optim.make_optimizer(names, decay, 1e-4)
    devices = jax.devices()[:1]
    state = State.create(start, optimizer, devices)
    facts = DECATHLON["cifar100"]
    domain = Domain(
        "noise", tuple(map(str, range(CLASSES))), facts.mean, facts.std, size=arguments.size
    )
    step = make_train_step(
        spec, domain, optimizer, names, devices=devices, dtype=jnp.dtype(arguments.dtype)
    )
    fed = {"image": images[None], "label": labels[None], "flip": np.zeros((1, batch), bool)}

    def run():
        nonlocal state
        state, measured = step(state, fed, None)
        jax.block_until_ready((state, measured))

    return run


def inferring(row, images, arguments):
    """Return a function that runs the network once and waits for it."""
    spec = ModelSpec(width=arguments.width, adapter=INFERENCE[row])
    variables = initial_variables(spec, CLASSES, seed=0)
    if row == "parallel, folded":
        variables = fold(**variables, fold_norm=False)
        spec = ModelSpec(width=arguments.width)
    variables = jax.tree.map(jnp.asarray, variables)
    model = spec.build(CLASSES, dtype=jnp.dtype(arguments.dtype))
    apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    pixels = jnp.asarray(images, jnp.float32) / 255
    return lambda: apply(variables, pixels).block_until_ready()


class Peer:
    """The other process, with one variant of PyTorch's network in it."""

    def __init__(self, python, variant):
        self.variant = variant
        self._process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / "peer_torch.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)


def peers_of(python, kind, method, images, labels, folder, arguments):
    """Start the peer's variants, on our weights; its logits must be ours."""
    spec = ModelSpec(width=arguments.width, adapter=kind, adapter_init="he_normal")
    variables = trees.to_numpy(initial_variables(spec, CLASSES, seed=0))
    np.savez(folder / "weights.npz", **trees.flatten(variables))
    pixels = (images / 255).astype(np.float32)
    np.save(folder / "images.npy", pixels)
    np.save(folder / "labels.npy", labels)
    variants = [{"channels_last": last, "compile": False} for last in (True, False)]
    if arguments.compile:
        variants.append({"channels_last": True, "compile": True})
    found = []
    for variant in variants:
        peer = Peer(python, variant)
        facts = peer.ask(
            do="setup",
            weights=str(folder / "weights.npz"),
            images=str(folder / "images.npy"),
            labels=str(folder / "labels.npy"),
            kind=kind,
            method=method,
            width=arguments.width,
            classes=CLASSES,
            bfloat16=arguments.dtype == "bfloat16",
            **variant,
        )
        peer.torch = facts["torch"]
        found.append(peer)
    model, batch = spec.build(CLASSES), jnp.asarray(pixels)
    with jax.default_matmul_precision("highest"):
        for train in (False, True):
            ours = model.apply(variables, batch, train=train, mutable=["batch_stats"])[0]
            theirs = np.array(found[0].ask(do="logits", train=train)["logits"])
            np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    return found


def fastest(peers):
    """Close all peers but the one that is fastest after a warm-up."""
    for peer in peers:
        peer.ask(do="run", n=1)
    trial = {peer: min(peer.ask(do="run", n=2)["seconds"]) for peer in peers}
    best = min(trial, key=trial.get)
    for peer in peers:
        if peer is not best:
            peer.close()
    return best


def measure(run, peer, repeats):
    """Return the seconds of ours and of the peer (None: there is none), taken in turn."""
    for _ in range(2):
        run()
    ours, theirs = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        ours.append(time.perf_counter() - start)
        if peer is not None:
            theirs += peer.ask(do="run", n=1)["seconds"]
    return ours, theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python that has PyTorch")
    parser.add_argument("--compile", action="store_true", help="also the peer's torch.compile")
    parser.add_argument("--batches", default="32,128")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", default="", help="rows, separated by semicolons")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "train.csv")
    arguments = parser.parse_args()
    facts = machine.facts()
    jax_version = f"jax {facts.pop('jax')}"
    shared = {
        "n": arguments.repeats,
        "size": arguments.size,
        "width": arguments.width,
        "dtype": arguments.dtype,
        **facts,
    }
    rows = [f"train {name}" for name in METHODS] + [f"infer {name}" for name in INFERENCE]
    rows = [row for row in rows if not arguments.only or row in arguments.only.split(";")]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for batch in map(int, arguments.batches.split(",")):
            stream = np.random.default_rng(0)
            shape = (batch, arguments.size, arguments.size, 3)
            images = stream.integers(0, 256, shape, dtype=np.uint8)
            labels = stream.integers(0, CLASSES, batch).astype(np.int32)
            for row in rows:
                job, name = row.split(" ", 1)
                if job == "train":
                    kind, run = METHODS[name][0], trained(name, batch, images, labels, arguments)
                else:
                    kind, run = INFERENCE[name], inferring(name, images, arguments)
                peer = None
                if arguments.peer and name != "parallel, folded":
                    method = name if job == "train" else ""
                    started = peers_of(
                        arguments.peer, kind, method, images, labels, Path(folder), arguments
                    )
                    peer = fastest(started)
                ours, theirs = measure(run, peer, arguments.repeats)
                found = [("radapt_jax", "", jax_version, ours)]
                if peer is not None:
                    variant = " ".join(key for key, value in peer.variant.items() if value)
                    found.append(("PyTorch", variant or "plain", f"torch {peer.torch}", theirs))
                    peer.close()
                for who, variant, versions, seconds in found:
                    rates = batch / np.array(seconds)
                    print(
                        f"{row:26} {batch:5} {who:10} {np.median(rates):8.1f} "
                        f"[{rates.min():.1f}, {rates.max():.1f}] images/s {variant}",
                        flush=True,
                    )
                    lines.append(
                        {
                            **{"row": row, "who": who, "variant": variant, "batch": batch},
                            "images_per_second": f"{np.median(rates):.1f}",
                            "least": f"{rates.min():.1f}",
                            "most": f"{rates.max():.1f}",
                            "versions": versions,
                            **shared,
                        }
                    )
    with open(arguments.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
