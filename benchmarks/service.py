"""`radapt serve` under load from a second process: speed, latency, memory, swaps.

    python benchmarks/service.py --peer PYTHON

One, ten and a hundred domains with parallel adapters of ten classes are asked in turn for one image
a request, by threads that each ask, wait and check the answer; ten of them also by fewer and by
more threads. Three ways take turns: ours, ours with every domain computed apart, and a plain
PyTorch service with a merged network for each domain (`peer_service.py`; without --peer it is left
out). Then domains are swapped all along, for --minutes. A turn beside other work is measured again
(see `quiet.py`). Weights are at random (speed does not depend on them), images are real.
"""

import argparse
import base64
import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import figures
import httpx
import machine
import numpy as np
import quiet
from machine import ROOT
from PIL import Image
from random_family import make_family, member
from served import Server

from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.utils import trees

COUNTS, CLASSES, IMAGES = (1, 10, 100), 10, 16
WAYS = {"ours": (), "ours, apart": ("--apart",)}
PEER = "PyTorch, a network a domain"
COLUMNS = (
    *(
        "row",
        "domains",
        "n",
        "requests",
        "wrong",
        "per_second",
        "least",
        "most",
        "p50_ms",
        "p99_ms",
    ),
    *("gib", "swaps", "connections", "width", "size", "device", "jax", "commit", "others"),
)
KEY = ("row", "domains", "connections", "width", "size")
OTHERS_AT, OTHER_LOADS = 10, (1, 64)  # domains, and connections


def real_images(size):
    """PNG files of real pictures."""
    found = []
    for example, _ in zip(open_embedded("pictures").splits["test"](), range(IMAGES), strict=False):
        stream = io.BytesIO()
        Image.fromarray(example.image).convert("RGB").resize((size, size)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def answers(family, name, images):
    """The most probable class of each image, and its probability."""
    found = family.predict(family.preprocess(images, domain=name), domain=name)
    return [(str(row.argmax()), float(row.max())) for row in found]


class Load:
    """Asks a server in a process of its own; `finish` returns what it saw."""

    def __init__(self, server, seconds, connections, images, domains, expected):
        job = {"url": server.url, "seconds": seconds, "connections": connections, "top": 3}
        job |= {"images": [base64.b64encode(it).decode() for it in images]}
        job |= {"domains": domains, "expected": expected}
        script = str(Path(__file__).parent / "service_load.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, script], **pipes)
        self._watch = quiet.Watch((self._process.pid, server.process.pid))
        self._process.stdin.write(json.dumps(job))
        self._process.stdin.close()

    def finish(self):
        found = json.loads(self._process.stdout.read())
        found["others"] = self._watch.others()
        self._process.wait()
        for told in found["wrong"][:3]:
            print(f"WRONG: {told}", file=sys.stderr)
        return found


def undisturbed(*job):
    """Return what a load saw, from a quiet machine if there is one; wrong answers are kept."""
    return quiet.undisturbed(
        lambda: Load(*job).finish(), lambda found: None if found["wrong"] else found["others"]
    )


def resident(pid):
    """GiB of a process."""
    lines = dict(it.split(":", 1) for it in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 2**20


class PeerServer:
    """`peer_service.py` under another Python, on the folded networks of a family."""

    def __init__(self, python, family, folder, width):
        for name in family:
            np.savez(folder / f"{name}.npz", **trees.flatten(family.fold(name).weights.variables))
        (folder / "facts.json").write_text(json.dumps({"width": width}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        script = str(Path(__file__).parent / "peer_service.py")
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([python, script, str(folder), str(port)])
        for _ in range(600):
            with contextlib.suppress(httpx.ConnectError):
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError("the peer did not start; its error is above.")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def compare(arguments, images, facts, put):
    """Put rows of every way and count of domains, measured in turns."""
    for count in COUNTS:
        family = make_family(count, arguments.width, arguments.size, CLASSES)
        expected = {name: {"*": answers(family, name, images)} for name in family}
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            folder = Path(folder)
            family.save(folder / "run")
            servers = {}
            for way, options in WAYS.items():
                servers[way] = Server(folder / "run", folder / way, *options, token=None)
            if arguments.peer:
                (folder / "peer").mkdir()
                servers[PEER] = PeerServer(arguments.peer, family, folder / "peer", arguments.width)
            for server in servers.values():
                stack.callback(server.stop)
            for connections in loads(count, arguments.connections):
                seen = {way: [] for way in servers}
                for turn in range(arguments.repeats + 1):
                    for way, server in servers.items():
                        seconds = arguments.seconds if turn else 3  # the first turn warms up
                        asked = (images, list(family), expected)
                        found = undisturbed(server, seconds, connections, *asked)
                        seen[way] += [found] if turn else []
                for way, found in seen.items():
                    rates = sorted(len(it["ms"]) / it["seconds"] for it in found)
                    gib = f"{resident(servers[way].process.pid):.2f}"
                    line = row(way, count, found, rates)
                    put({**facts, **line, "connections": connections, "gib": gib})


def loads(count, connections):
    """The numbers of connections: one, and fewer and more where there are ten domains."""
    return sorted({connections, *OTHER_LOADS}) if count == OTHERS_AT else [connections]


def row(name, domains, found, rates):
    took = np.concatenate([it["ms"] for it in found])
    others = [it["others"] for it in found if it["others"] is not None]
    return {
        **{"row": name, "domains": domains, "n": len(found), "requests": len(took)},
        "others": quiet.told(max(others, default=None)),
        **{"wrong": sum(len(it["wrong"]) for it in found), "swaps": 0},
        "per_second": f"{np.median(rates):.1f}",
        **{"least": f"{rates[0]:.1f}", "most": f"{rates[-1]:.1f}"},
        **{f"p{it}_ms": f"{np.percentile(took, it):.2f}" for it in (50, 99)},
    }


def swap(arguments, images, facts, put):
    """Put rows of swaps at rest, and of load while domains are swapped all along."""
    width, size, count = arguments.width, arguments.size, max(COUNTS)
    family = make_family(count, width, size, CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        family.save(folder / "run")
        files, expected = {}, {name: {} for name in family}
        for version in (0, 1):
            for seed in range(count):
                name = f"d{seed}"
                family.add(name, member(name, seed + 1000 * version, width, size, CLASSES))
                path = folder / f"{name}-{version}"
                family.save_domain(name, path)
                files[name, version] = path.read_bytes()
                expected[name][family[name].card()["sha256"]] = answers(family, name, images)
        with Server(folder / "run", folder / "log") as server:

            def put_file(name, version):
                done = server.client.put(f"/domains/{name}", content=files[name, version])
                done.raise_for_status()
                return done.json()["done"]

            kind, took = {"Content-Type": "image/png"}, []
            quiet.wait()
            watch = quiet.Watch((server.process.pid,))
            for seed in range(20):
                start = time.perf_counter()
                put_file(f"d{seed}", 1)
                server.client.post(f"/predict/d{seed}", content=images[0], headers=kind)
                took.append(1000 * (time.perf_counter() - start))
            rest = {"ms": took, "wrong": [], "seconds": sum(took) / 1000, "others": watch.others()}
            line = row("from PUT to the first answer, at rest", count, [rest], [len(took)])
            put({**facts, **line, "swaps": len(took), "n": len(took), "per_second": ""})
            seconds = 60 * arguments.minutes
            job = (server, seconds, arguments.connections, images, list(family), expected)
            asking, swaps, until = Load(*job), 0, time.monotonic() + seconds - 1
            while time.monotonic() < until:
                assert put_file(f"d{swaps % count}", (swaps // count) % 2) in (
                    "replaced",
                    "unchanged",
                )
                swaps += 1
            found = asking.finish()
            rates = [len(found["ms"]) / found["seconds"]]
            line = row(f"swaps for {arguments.minutes:g} minutes", count, [found], rates)
            gib = f"{resident(server.process.pid):.2f}"
            put({**facts, **line, "swaps": swaps, "gib": gib})


def picture(run, path):
    """Save a picture of the page that serves a trained run, with answers to three real images."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as browsers:
        files = []
        for name in ("digits", "faces", "surfaces"):
            example = next(iter(open_embedded(name).splits["test"]()))
            files.append(Path(folder) / f"{name}.png")
            Image.fromarray(example.image).save(files[-1])
        with Server(run, Path(folder) / "log", token=None) as server:
            chromium = browsers.chromium.launch(executable_path=shutil.which("chromium"))
            page = chromium.new_page(viewport={"width": 1000, "height": 900})
            page.goto(server.url)
            page.wait_for_selector("#domains tr")
            page.set_input_files("#files", files)
            page.wait_for_selector("#status:has-text('answers in')")
            page.screenshot(path=path, full_page=True)
            chromium.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python with PyTorch, fastapi, uvicorn and pillow")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=15, help="of a turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10, help="of swaps under load")
    parser.add_argument("--run", help="a trained run, whose page is drawn: docs/service.png")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "service.csv")
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    facts = {"width": arguments.width, "size": arguments.size, **machine.facts()}
    facts |= {"connections": arguments.connections, "gib": ""}

    def put(line):
        print({name: line[name] for name in COLUMNS[:12]}, flush=True)
        figures.put(arguments.out, COLUMNS, KEY, [line], arguments.allow_dirty)

    images = real_images(arguments.size)
    compare(arguments, images, facts, put)
    swap(arguments, images, facts, put)
    if arguments.run:
        picture(arguments.run, ROOT / "docs" / "service.png")


if __name__ == "__main__":
    main()
