"""`radapt serve` as a process: swaps under load, stops, kills, flags."""

import concurrent.futures
import functools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import asking
import httpx
import numpy as np
import pytest
from asking import NPY, WIDTH, check, family_to_serve, npy, refused
from conftest import ROOT
from families import member_of, whole

from radapt_jax import Family
from radapt_jax.__main__ import main
from radapt_jax.commands import serve as serving_command
from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.serve.server import bind

sys.path.append(str(ROOT / "benchmarks"))

from served import Server


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(6))


@pytest.fixture(scope="module")
def family(digits, faces):
    return family_to_serve(digits, faces)


@pytest.fixture
def file_of(digits, tmp_path):
    return functools.partial(asking.file_of, digits, tmp_path)


@pytest.mark.parametrize("held", [(), ("--at_most", 2)], ids=["all", "two"])
def test_swaps_under_load(family, digits, pixels, tmp_path, held):
    """While domains come, change and go, every answer is of a version that was there."""
    family.save(tmp_path / "run")
    names, versions = [f"d{k}" for k in range(6)], 3
    known, files = {}, {}
    for name in names:
        for version in range(versions):
            member = member_of(digits, "parallel", 10 * int(name[1:]) + version, width=WIDTH)
            one = Family(family.shared, [])
            one.add(name, member)
            one.save_domain(name, tmp_path / "file")
            files[name, version] = (tmp_path / "file").read_bytes()
            known[name, one[name].card()["sha256"]] = one.predict(pixels, domain=name)
    stop, counts, wrong = threading.Event(), dict.fromkeys(names, 0), []
    with Server(tmp_path / "run", tmp_path / "log", "--batch", 4, *held) as server:
        for name in names:
            assert server.client.put(f"/domains/{name}", content=files[name, 0]).status_code == 201

        def ask(worker):
            with httpx.Client(base_url=server.url, timeout=60) as client:
                for turn in range(10**9):
                    if stop.is_set():
                        return
                    name, place = names[(turn + worker) % len(names)], turn % len(pixels)
                    found = client.post(
                        f"/predict/{name}?top=10", content=npy(pixels[place]), headers=NPY
                    )
                    if not agrees(found, known, name, place):
                        wrong.append((name, found.status_code, found.text))
                    counts[name] += 1

        workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
        for worker in workers:
            worker.start()
        for turn in range(2 * len(names) * versions):
            name, version = names[turn % len(names)], (turn // len(names) + 1) % versions
            done = server.client.put(f"/domains/{name}", content=files[name, version])
            assert done.json()["done"] == "replaced", done.text
        stop.set()
        for worker in workers:
            worker.join()
        assert wrong == []
        for name in names[:3]:
            assert server.client.delete(f"/domains/{name}").status_code == 200
        assert min(counts.values()) > 3
        assert server.stop() == -signal.SIGTERM
    kept = list((tmp_path / "run" / "removed").glob("d0-*.safetensors"))
    assert len(kept) == versions  # each of them was replaced, and the last one deleted
    assert adapter_file.read(kept[0]).domain.name == "d0"


def agrees(found, known, name, place):
    """Whether an answer is that of the version it names."""
    if found.status_code != 200:
        return False
    told = found.json()
    row = known.get((name, told["sha256"]), np.full((len(known), 10), np.nan))[place]
    guesses = {it["name"]: it["probability"] for it in told["images"][0]}
    return np.allclose([guesses[str(k)] for k in range(10)], row, atol=1e-5)


def test_what_was_put_is_there_after_a_kill(family, file_of, digits, pixels, tmp_path):
    family.save(tmp_path / "run")
    with Server(tmp_path / "run", tmp_path / "log", "--batch", 1) as server:
        assert server.client.put("/domains/new", content=file_of(5)).status_code == 201
        assert server.client.delete("/domains/b").status_code == 200
        version = server.client.get("/domains/new").json()["sha256"]
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with Server(tmp_path / "run", tmp_path / "log", "--batch", 1) as server:
        found = [it["name"] for it in server.client.get("/domains").json()["domains"]]
        assert found == ["a", "c", "new", "source"]
        assert server.client.get("/domains/new").json()["sha256"] == version
    (kept,) = (tmp_path / "run" / "removed").iterdir()
    assert adapter_file.read(kept).card()["sha256"] == family["b"].card()["sha256"]


def test_a_stop_answers_what_waits_and_takes_no_more(family, pixels, tmp_path):
    """SIGTERM while requests wait: all are answered, then the process ends by itself."""
    family.save(tmp_path / "run")
    waits = ("--batch", 4, "--wait", 1000)  # three images of four wait a second for a fourth
    with Server(tmp_path / "run", tmp_path / "log", *waits) as server:

        def ask(name):
            where = f"{server.url}/predict/{name}"
            return httpx.post(where, content=npy(pixels[:1]), headers=NPY, timeout=60)

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask, name) for name in "abc"]
            until = time.monotonic() + 30
            while "waiting_images 3.0" not in server.client.get("/metrics").text:
                assert time.monotonic() < until
            server.process.send_signal(signal.SIGTERM)
            for name, answer in zip("abc", asked, strict=True):
                check(answer.result(), family, name, pixels[:1], 5)
        assert server.process.wait(60) == -signal.SIGTERM
        with pytest.raises(httpx.ConnectError):
            ask("a")


def test_a_full_queue_and_slow_answers(family, pixels, tmp_path):
    family.save(tmp_path / "run")
    bounds = ("--batch", 4, "--wait", 1000, "--images", 2, "--waiting", 2, "--seconds", 0.5)
    with Server(tmp_path / "run", tmp_path / "log", *bounds) as server:

        def ask(count):
            where = f"{server.url}/predict/a"
            return httpx.post(where, content=npy(pixels[:count]), headers=NPY, timeout=60)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, 2)
            until = time.monotonic() + 30
            while "waiting_images 2.0" not in server.client.get("/metrics").text:
                assert time.monotonic() < until
            full = ask(1)
            refused(full, 429, "found 2 images waiting and 1 more; expected 2 at most")
            assert full.headers["Retry-After"] == "1"
            refused(first.result(), 503, "found no answer within 0.5 s")
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = "POST /predict/a HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\nslow".encode())
            assert b"408" in connection.recv(1000).split(b"\r\n")[0]


def test_a_server_without_a_token_changes_nothing(family, file_of, tmp_path):
    family.save(tmp_path / "run")
    with Server(tmp_path / "run", tmp_path / "log", "--batch", 1, token=None) as server:
        put = server.client.put("/domains/d", content=file_of(5))
        refused(put, 403, "without a token")
        refused(server.client.delete("/domains/a"), 403, "without a token")
        assert not server.client.get("/domains").json()["changeable"]
        assert checkpoint.list_members(tmp_path / "run") == sorted(family)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", "0"), "--batch 0; expected a whole number from 1"),
        (("--wait", "-1"), "--wait -1.0; expected 0 to 1000 ms"),
        (("--waiting", "1"), "found waiting 1 below images 64"),
        (("--pixels", "99999999999"), "pixels"),
        (("--port", "70000"), "found --port 70000; expected 0"),
        (("--token_file", "short"), "expected 16 or more"),
        (("--token_file", "missing"), "missing"),
    ],
)
def test_arguments_that_are_refused(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("short")
    with pytest.raises(SystemExit, match=re.escape(words)):
        main(["serve", "run", *arguments])


def ended(folder, *arguments):
    """What a server says that cannot start."""
    command = [sys.executable, "-m", "radapt_jax", "serve", "--port", "0", *arguments]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_address_in_use_is_said_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = ended(tmp_path, "nowhere", "--port", str(port))
    assert f"error: found no way to listen at 127.0.0.1:{port}: " in said


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nobody_is_left_waiting_while_a_server_loads(host):
    """The address is the server's, and connections are refused until it listens."""
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    with bind(host, 0) as bound:
        address = bound.getsockname()[:2]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
        bound.listen()
        socket.create_connection(address, timeout=5).close()
        with pytest.raises(OSError, match="found no way to listen at"):
            bind(host, address[1])


def test_one_connection_is_one(family, pixels, tmp_path):
    family.save(tmp_path / "run")
    with Server(tmp_path / "run", tmp_path / "log", "--connections", 1) as server:
        check(
            server.client.post("/predict/a", content=npy(pixels[:1]), headers=NPY),
            family,
            "a",
            pixels[:1],
            5,
        )


def test_a_workdir_without_a_family(tmp_path):
    assert ended(tmp_path, "nowhere").startswith("error: found no shared weights at ")


def test_a_domain_that_another_process_writes(family, digits, pixels, tmp_path):
    """It is refused where it is read when asked for, until it is put: never answered wrongly."""
    family.save(tmp_path / "run")
    other = family.fitted("c", member_of(digits, "parallel", 8, width=WIDTH))
    file = asking.file_of(digits, tmp_path, 9)
    with Server(tmp_path / "run", tmp_path / "log", "--batch", 1, "--at_most", 1) as server:
        checkpoint.save_member(other, tmp_path / "run")

        def ask(name):
            return server.client.post(f"/predict/{name}", content=npy(pixels[:1]), headers=NPY)

        refused(ask("c"), 503, "damaged on the server's disk, or another one by now")
        check(ask("a"), family, "a", pixels[:1], 5)
        assert server.client.put("/domains/c", content=file).json()["done"] == "replaced"
        assert ask("c").status_code == 200
        assert server.client.put("/domains/c", content=file).json()["done"] == "unchanged"
        checkpoint.save_member(other, tmp_path / "run")
        assert server.client.put("/domains/c", content=file).json()["done"] == "replaced"
        damaged = tmp_path / "run" / "domains" / "c" / "card.json"
        damaged.write_text("{}")
        assert server.client.put("/domains/c", content=file).json()["done"] == "replaced"
        assert server.client.put("/domains/c", content=file).json()["done"] == "unchanged"
        assert ask("c").status_code == 200
        checkpoint.save_member(family["c"], tmp_path / "run")  # of another class count
        assert ask("b").status_code == 200  # so that c leaves memory
        assert server.client.delete("/domains/c").status_code == 200
        names = [it["name"] for it in server.client.get("/domains").json()["domains"]]
        assert names == ["a", "b", "source"]


def test_a_damaged_domain_ends_the_server(family, tmp_path):
    """Where domains are read as they are asked for, it is found as the programs are measured."""
    family.save(tmp_path / "run")
    card = tmp_path / "run" / "domains" / "a" / "card.json"
    facts = json.loads(card.read_text())
    card.write_text(json.dumps({**facts, "sha256": "0" * 64}))
    for held in ((), ("--at_most", "2")):
        said = ended(tmp_path, "run", *held)
        assert re.search(r"^error: .*/domains/a is damaged", said, re.MULTILINE), said


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(serving_command, "NEEDED", ("fastapi", "no_such_package"))
    with pytest.raises(SystemExit, match=r"no_such_package; .* pip install -e '.\[serve\]'"):
        main(["serve", "run"])
