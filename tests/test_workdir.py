"""One process trains in a workdir; what it writes there is whole; others may read."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from families import empty_family, member_of

from radapt_jax import Family, __main__
from radapt_jax.decathlon import submission
from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.train.lock import HOLDER, LOCK, held
from radapt_jax.train.log import RunLog
from radapt_jax.utils import files

WIDTH = 1 / 32
HOLDING = """
import pathlib, sys, time
from radapt_jax.train.lock import held
with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds `<tmp_path>/run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(holder, tmp_path):
    before = contents(tmp_path / "run")
    told = rf"in use: process {holder.pid} on .*, since 20.*(.|\n)*another workdir"
    with pytest.raises(BlockingIOError, match=told), held(tmp_path / "run"):
        pass
    assert contents(tmp_path / "run") == before
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / HOLDER).is_file()  # of the one that was killed
    with held(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / HOLDER).read_text())["pid"] == os.getpid()


def test_train_py_refuses_a_workdir_in_use(holder, tmp_path):
    (tmp_path / "run" / ".shared.new").mkdir()  # of the save that is under way there
    before = sorted((tmp_path / "run").iterdir())
    command = [sys.executable, "train.py", "--config", "configs/quickstart.py:scratch"]
    done = subprocess.run(
        [*command, "--workdir", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"error: {tmp_path / 'run'} is in use: process {holder.pid}" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted((tmp_path / "run").iterdir()) == before


def test_commands_refuse_a_workdir_in_use(holder, digits, tmp_path):
    """What a training holds is not written to by swap or merge, and is as it was."""
    family = empty_family(WIDTH)
    family.add("digits", member_of(digits, "parallel", 1, width=WIDTH))
    family.save(tmp_path / "a")
    family.save_domain("digits", tmp_path / "digits.safetensors")
    run = tmp_path / "run"
    in_use = rf"error: {run} is in use: process {holder.pid} on .* writes there"
    merge = ["merge", str(tmp_path / "a"), "--out", str(run)]
    with pytest.raises(SystemExit, match=in_use):
        __main__.main(merge)
    assert contents(run).keys() == {LOCK, HOLDER}
    family.save(run)
    before = read(run)
    family.add("digits", member_of(digits, "parallel", 2, width=WIDTH))
    family.save_domain("digits", tmp_path / "digits.safetensors")
    swap = ["swap", str(run), str(tmp_path / "digits.safetensors"), "--replace"]
    with pytest.raises(SystemExit, match=in_use):
        __main__.main(swap)
    assert read(run) == before
    holder.kill()
    holder.wait()
    __main__.main(swap)
    assert read(run) == family["digits"].card()["sha256"]
    assert not (run / HOLDER).exists()
    with pytest.raises(SystemExit, match="found no workdir"):
        __main__.main(["swap", str(tmp_path / "not" / "there"), swap[2]])
    assert not (tmp_path / "not").exists()


def test_a_workdir_is_removed_again_only_if_nothing_was_written(tmp_path):
    with held(tmp_path / "new"):
        assert {path.name for path in (tmp_path / "new").iterdir()} == {LOCK, HOLDER}
    assert not (tmp_path / "new").exists()
    with held(tmp_path / "new"):
        files.write_atomically(tmp_path / "new" / "config.json", "{}")
    left = {path.name for path in (tmp_path / "new").iterdir()}
    assert left - {LOCK} == {"config.json"}  # older filelocks remove their file


@pytest.fixture
def family(digits, tmp_path):
    """A family whose domain is on disk as `first`, and is to be replaced by `second`."""
    found = empty_family(WIDTH)
    found.add("digits", member_of(digits, "parallel", 1, width=WIDTH))
    found.save(tmp_path)
    found.first = found["digits"].card()["sha256"]
    found.add("digits", member_of(digits, "parallel", 2, width=WIDTH))
    found.second = found["digits"].card()["sha256"]
    return found


def read(workdir):
    return Family.load(workdir)["digits"].card()["sha256"]


def test_a_domain_that_is_replaced_while_it_is_read_is_read_again(family, tmp_path, monkeypatch):
    plain = checkpoint.ocp.load

    def meanwhile(path):
        if "digits" in path.parts:
            monkeypatch.setattr(checkpoint.ocp, "load", plain)
            checkpoint.save_member(family["digits"], tmp_path)
        return plain(path)

    monkeypatch.setattr(checkpoint.ocp, "load", meanwhile)
    assert read(tmp_path) == family.second


def test_a_reader_between_the_renames_does_no_harm(family, tmp_path, monkeypatch):
    plain, seen = checkpoint.os.replace, []

    def meanwhile(source, target):
        if target == tmp_path / "domains" / "digits":
            seen.append(read(tmp_path))
        plain(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", meanwhile)
    checkpoint.save_member(family["digits"], tmp_path)
    assert [*seen, read(tmp_path)] == [family.first, family.second]


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_the_old_one_or_the_new_one(step, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    files.write_atomically(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, step, full_disk)
        with pytest.raises(OSError, match=r"results\.json could not be saved(.|\n)*No space left"):
            files.write_atomically(path, "new")
    assert contents(tmp_path) == {"results.json": b"old"}
    files.write_atomically(path, "neu: β\n")
    assert contents(tmp_path) == {"results.json": "neu: β\n".encode()}


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("kind", ["a domain's file", "a submission"])
def test_a_full_disk_leaves_the_file_that_was_written(kind, step, digits, tmp_path, monkeypatch):
    def write(seed):
        if kind == "a submission":
            found = {"svhn": [submission.Answer(number, seed) for number in range(9)]}
            submission.write_submission(found, tmp_path / "it")
        else:
            adapter_file.write(member_of(digits, "none", seed, width=WIDTH), tmp_path / "it")

    write(1)
    before = contents(tmp_path)
    assert before.keys() == {"it"}
    with monkeypatch.context() as patch:
        patch.setattr(files.os, step, full_disk)
        with pytest.raises(OSError, match=r"it could not be saved(.|\n)*No space left"):
            write(2)
    assert contents(tmp_path) == before
    write(2)
    after = contents(tmp_path)
    assert after.keys() == {"it"}
    assert after != before


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no devices")
def test_a_device_is_not_replaced_by_a_file(digits):
    for write in (
        lambda: submission.write_submission({}, "/dev/null"),
        lambda: adapter_file.write(member_of(digits, "none", 1, width=WIDTH), "/dev/null"),
    ):
        with pytest.raises(OSError, match="found no place for a file at /dev/null"):
            write()


def test_a_full_disk_leaves_the_domain_that_was_saved(family, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp, "save", full_disk)
        with pytest.raises(OSError, match=r"digits could not be saved(.|\n)*No space left"):
            checkpoint.save_member(family["digits"], tmp_path)
    assert read(tmp_path) == family.first
    checkpoint.clean(tmp_path)
    assert {path.name for path in (tmp_path / "domains").iterdir()} == {"digits"}


def test_leftovers_of_killed_saves_are_put_right(family, tmp_path):
    family.add("numbers", family["digits"])
    family.save(tmp_path)
    (tmp_path / "shared").rename(tmp_path / ".shared.old")
    (tmp_path / ".shared.new" / "variables.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "domains" / "digits").rename(tmp_path / "domains" / ".digits.old")
    (tmp_path / "domains" / ".numbers.old").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert Family.load(tmp_path).domains == ["digits", "numbers"]
    assert sorted(tmp_path.rglob("*")) == before  # reading changes nothing
    checkpoint.clean(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"shared", "domains"}
    assert {path.name for path in (tmp_path / "domains").iterdir()} == {"digits", "numbers"}
    assert Family.load(tmp_path).domains == ["digits", "numbers"]


def test_a_kill_while_metrics_are_rewritten_loses_no_row(tmp_path, monkeypatch):
    with RunLog(tmp_path, "digits", 0, 9, 1) as log:
        for step in (1, 2, 3):
            log.write(step, step / 3, "train", loss=1.0, top1=50.0)
    path = tmp_path / "metrics" / "digits.csv"
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            RunLog(tmp_path, "digits", 2, 9, 1)
    assert path.read_bytes() == before
    with open(path, "a") as file:
        file.write("4,1.3")  # as a kill, or a full disk, leaves it
    assert [row["step"] for row in files.read_rows(path)] == ["1", "2", "3"]
    with RunLog(tmp_path, "digits", 3, 9, 1) as log:
        log.write(4, 4 / 3, "train", loss=1.0, top1=50.0)
    with open(path, newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
