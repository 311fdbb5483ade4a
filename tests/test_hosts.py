"""Several processes that train together: real ones, on this host, with two devices each."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest
from conftest import QUICKLY, ROOT
from families import empty_family
from test_end_to_end import small

from radapt_jax import Family
from radapt_jax.data import batches
from radapt_jax.data.pixels import HostPixels
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.train.lock import check_shared, held
from radapt_jax.utils import distributed, files

CHANGES = {
    "domains": "digits",
    "train.steps": 4,
    "train.evals": 2,
    "train.log_every": 1,
    "train.accumulate": 2,
    "export": "best",
}
# train.py in a process that is killed in the last step, once the state of step 2 is saved.
DYING = """
import os, pathlib, runpy, signal, sys, time
from radapt_jax.data import batches
plain = batches.train_batch
def dying(pixels, domain, batch_size, seed, step, *sharing):
    if step == 3:
        while not (pathlib.Path(sys.argv[-1]) / "training" / "digits" / "2").is_dir():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(pixels, domain, batch_size, seed, step, *sharing)
batches.train_batch = dying
sys.argv = sys.argv[1:]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    empty_family().save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def one_process(backbone, cache_dir, tmp_path_factory):
    """A run of one process with four devices."""
    folder = tmp_path_factory.mktemp("one")
    go_on_alone(folder, backbone, cache_dir)
    return folder


@pytest.fixture(scope="module")
def two_processes(backbone, cache_dir, tmp_path_factory):
    """A run of two processes with two devices each."""
    folder = tmp_path_factory.mktemp("two")
    outputs = ended(start(folder, backbone, cache_dir))
    assert [code for code, _, _ in outputs] == [0, 0], outputs
    return folder, outputs


def go_on_alone(folder, backbone, cache_dir):
    config = small("parallel", cache_dir, init_from=backbone, **CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "devices", lambda: jax.devices()[:4])
        train_and_evaluate(config, folder)


def start(folder, backbone, cache_dir, dying=None):
    """Start train.py in two processes of two devices; `dying` is the one that will be killed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    changes = {"init_from": backbone, "data.cache": cache_dir, **CHANGES}
    changes |= {"backbone.width": 0.125, "data.size": 16, "data.resize": 18, "train.batch_size": 32}
    flags = ["--config=configs/quickstart.py:parallel", f"--coordinator=localhost:{port}"]
    flags += [f"--config.{key}={value}" for key, value in changes.items()]
    return [
        subprocess.Popen(
            [
                sys.executable,
                *(["-c", DYING] if process == dying else []),
                "train.py",
                *(*flags, "--processes=2", f"--process={process}", "--workdir", str(folder)),
            ],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICKLY}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]


def ended(processes, within=120):
    """Return exit code, output and errors of each."""
    try:
        told = [process.communicate(timeout=within) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *it) for process, it in zip(processes, told, strict=True)]


def assert_same_run(folder, other, atol):
    """The same weights, metrics and results."""
    here, there = Family.load(folder), Family.load(other)
    chex.assert_trees_all_close(
        here.variables("digits"), there.variables("digits"), rtol=0, atol=atol
    )
    assert here["digits"].results == pytest.approx(there["digits"].results)
    rows = [files.read_rows(it / "metrics" / "digits.csv") for it in (folder, other)]
    assert [(row["step"], row["split"]) for row in rows[0]] == [
        (row["step"], row["split"]) for row in rows[1]
    ]
    for name in ("loss", "top1", "learning_rate"):
        values = [[float(row[name] or 0) for row in it] for it in rows]
        np.testing.assert_allclose(*values, rtol=1e-4)
    results = [(it / "results.json").read_text() for it in (folder, other)]
    assert results[0] == results[1]


def test_two_processes_train_as_one_does(one_process, two_processes):
    """Four devices either way; process 0 alone writes and tells."""
    folder, outputs = two_processes
    assert_same_run(folder, one_process, atol=1e-6)
    (_, told, errors), (_, others, others_errors) = outputs
    assert "digits" in told
    assert "training images" in errors
    assert "digits" not in others + others_errors


def test_one_of_two_is_killed(two_processes, backbone, cache_dir, tmp_path):
    """The other one ends, with a message; the same command goes on as if nothing had been.

    So does one process with as many devices.
    """
    folder, alone = tmp_path / "run", tmp_path / "alone"
    processes = start(folder, backbone, cache_dir, dying=1)
    assert processes[1].wait(timeout=120) == -signal.SIGKILL
    since = time.monotonic()
    shutil.copytree(folder, alone)
    go_on_alone(alone, backbone, cache_dir)  # while the other one listens for a sign of life
    assert_same_run(alone, two_processes[0], atol=1e-6)
    left = since + distributed.HEARTBEAT + 15 - time.monotonic()
    (code, _, errors), _ = ended(processes, within=max(left, 5))
    assert code not in (0, None)
    assert "has stopped, and with it the run" in errors or "another task died" in errors
    assert not (folder / "results.json").exists()
    (code, _, errors), (other, _, _) = ended(start(folder, backbone, cache_dir))
    assert (code, other) == (0, 0), errors
    assert "resumed at step 2 of 4" in errors
    assert_same_run(folder, two_processes[0], atol=0)


def test_two_processes_go_on_with_what_one_began(
    one_process, two_processes, backbone, cache_dir, tmp_path
):
    folder = shutil.copytree(one_process, tmp_path / "run")
    shutil.rmtree(folder / "domains" / "digits")
    shutil.rmtree(folder / "training" / "digits" / "4")
    (code, _, errors), (other, _, _) = ended(start(folder, backbone, cache_dir))
    assert (code, other) == (0, 0), errors
    assert "resumed at step 2 of 4" in errors
    assert_same_run(folder, one_process, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_processes_share_a_batch(parts, faces):
    """Together they cut what one process would, each image once; an evaluation's last batch too."""
    split, domain = faces.splits["train"], faces.domain
    pixels = HostPixels(split, domain.size)
    whole = batches.train_batch(pixels, domain, 16, 0, 3, 4, parts)
    shares = [batches.train_batch(pixels, domain, 16, 0, 3, 4, parts, (it, 2)) for it in (0, 1)]
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([share[name] for share in shares]))
    every = batches.eval_batches(pixels, domain, 16, 4, 5)
    halves = [batches.eval_batches(pixels, domain, 16, 4, 5, (it, 2)) for it in (0, 1)]
    for (real, batch), *found in zip(every, *halves, strict=True):
        assert [count for count, _ in found] == [real, real]
        for name, array in batch.items():
            np.testing.assert_array_equal(array, np.concatenate([it[name] for _, it in found]))


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (("localhost:1", 2, None), "--process=None; expected all three"),
        (("localhost:1", 2, 2), "--process=2; expected 0 to 1"),
    ],
)
def test_flags_that_do_not_fit(place, told):
    with pytest.raises(ValueError, match=told):
        distributed.initialize(*place)


def test_no_cluster_is_found(tmp_path):
    """A message that says what to do, and no traceback."""
    command = [sys.executable, "train.py", "--config=configs/scratch.py", "--distributed"]
    told = subprocess.run(
        [*command, f"--workdir={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "error: found no other processes of a cluster" in told.stderr
    assert "--coordinator=HOST:PORT --processes=N --process=I" in told.stderr
    assert "Traceback" not in told.stderr


def test_domains_are_not_trained_at_once_by_several_processes(
    backbone, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(distributed, "place", lambda: (0, 2))
    changes = {**CHANGES, "domains": "digits,faces", "train.together": 2}
    with pytest.raises(ValueError, match="together 2 and 2 processes"):
        train_and_evaluate(small("parallel", cache_dir, init_from=backbone, **changes), tmp_path)


def test_a_workdir_that_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setattr("radapt_jax.train.lock.PATIENCE", 0)
    with held(tmp_path):
        check_shared(tmp_path)
        monkeypatch.setattr(distributed, "by_main", lambda work: "of another host")
        with pytest.raises(FileNotFoundError, match="a file system that all hosts share"):
            check_shared(tmp_path)
