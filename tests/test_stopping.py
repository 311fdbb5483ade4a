"""Stopped by a signal, diverged, out of memory: what is said, what is saved, how it goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest
from conftest import ROOT
from test_end_to_end import pretrained as pretrained
from test_end_to_end import small

from radapt_jax import Family
from radapt_jax.data import batches
from radapt_jax.data.views import train_views
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.train import devices, progress
from radapt_jax.train.checkpoints import TrainingCheckpoints
from radapt_jax.train.progress import Diverged
from radapt_jax.train.signals import Stopped, Stopping


def config_of(pretrained, cache_dir, **changes):
    """Eight steps of digits, evaluated and saved after four and eight, rows of three steps."""
    changes = {"domains": "digits", "init_from": str(pretrained), **changes}
    changes = {"train.steps": 8, "train.evals": 2, "train.log_every": 3, **changes}
    return small("parallel", cache_dir, **changes)


def equal(whole, other):
    """Assert that two runs ended alike, in weights, metrics and results."""
    families = [Family.load(run) for run in (whole, other)]
    for domain in families[0]:
        chex.assert_trees_all_equal(*(family.variables(domain) for family in families))
    for name in ("metrics/digits.csv", "results.json"):
        assert (whole / name).read_text() == (other / name).read_text(), name


@pytest.fixture(scope="module")
def whole(pretrained, cache_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    train_and_evaluate(config_of(pretrained, cache_dir), workdir)
    return workdir


def signalling(number, at, monkeypatch):
    """Send this process a signal when batch `at` is cut."""
    plain = batches.train_batch

    def cut(pixels, domain, batch_size, seed, step, *sharing):
        if step == at:
            os.kill(os.getpid(), number)
        return plain(pixels, domain, batch_size, seed, step, *sharing)

    monkeypatch.setattr(batches, "train_batch", cut)


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 1), (signal.SIGINT, 6), (15, 3)])
def test_a_signal_saves_first_and_nothing_is_lost(
    number, at, whole, pretrained, cache_dir, tmp_path, monkeypatch
):
    """In the middle of a row of metrics, after one, and at a step that is saved anyway."""
    config = config_of(pretrained, cache_dir)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signalling(number, at, patch)
        told = rf"SIG.*: digits: saved at step {at + 1} of 8\. Start the same command again"
        with pytest.raises(Stopped, match=told) as stopped:
            train_and_evaluate(config, tmp_path)
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is before
    seen = []
    plain = devices.OneDomain.step

    def counting(self, index):
        seen.append(index)
        return plain(self, index)

    monkeypatch.setattr(devices.OneDomain, "step", counting)
    train_and_evaluate(config, tmp_path)
    assert seen == list(range(at + 1, 8))
    equal(whole, tmp_path)


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(0.1)  # Python runs the handler between two lines


def held_and_sent(stopping, *numbers):
    with stopping.held():
        send(*numbers)


def test_a_second_signal_does_not_wait():
    with Stopping() as stopping, pytest.raises(Stopped, match="SIGINT: stopped"):
        held_and_sent(stopping, signal.SIGTERM, signal.SIGINT)
    with Stopping() as stopping, pytest.raises(Stopped, match=r"SIGTERM: .* a training that is"):
        held_and_sent(stopping, signal.SIGTERM)


def test_a_signal_outside_of_training_stops_at_once():
    with Stopping(), pytest.raises(Stopped, match="SIGTERM: stopped") as stopped:
        send(signal.SIGTERM)
    assert stopped.value.code == 143


def test_the_command_says_so_with_an_exit_code_of_its_own(tmp_path):
    """A process of its own, which sends itself the signal."""
    script = (
        "import os, signal\n"
        "from radapt_jax import startup\n"
        "from radapt_jax.train.signals import Stopping\n"
        "def main(_):\n"
        "    with Stopping():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "startup.run(main)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 143
    assert found.stderr == "SIGTERM: stopped; what was saved is kept.\n"


def diverging(bad, monkeypatch):
    """Let the steps of some batches lose the loss, and with it the state."""
    plain = devices.OneDomain.step

    def step(self, index):
        measured = plain(self, index)
        if index in bad:
            self._state = jax.tree.map(lambda leaf: leaf * np.nan, self._state)
            measured["loss"] = measured["loss"] * np.nan
        return measured

    monkeypatch.setattr(devices.OneDomain, "step", step)


def test_a_lost_loss_stops_the_run_and_names_the_last_good_state(
    pretrained, cache_dir, tmp_path, monkeypatch
):
    diverging({5}, monkeypatch)
    told = (
        rf"digits: the loss .* NaN or infinite in step 6 of 8; last good checkpoint: step 4 "
        rf"\({tmp_path}/training/digits\).*config.optim.learning_rate.*--config.on_nan=rewind"
    )
    with pytest.raises(Diverged, match=told):
        train_and_evaluate(config_of(pretrained, cache_dir), tmp_path)
    with TrainingCheckpoints(tmp_path / "training" / "digits") as checkpoints:
        assert checkpoints.latest == 4  # nothing that was lost has been saved


def test_rewinding_skips_the_batch(pretrained, cache_dir, tmp_path, monkeypatch):
    """As if batches 1 and 5 had not been in the stream; killed and resumed on the way too."""
    config = config_of(pretrained, cache_dir, on_nan="rewind")
    with monkeypatch.context() as patch:
        diverging({1, 5}, patch)
        train_and_evaluate(config, tmp_path / "once")
        signalling(signal.SIGTERM, 6, patch)
        with pytest.raises(Stopped):
            train_and_evaluate(config, tmp_path / "stopped")
    skipped = json.loads((tmp_path / "once" / "training" / "digits" / "skipped.json").read_text())
    assert skipped == [1, 5]
    train_and_evaluate(config, tmp_path / "stopped")
    equal(tmp_path / "once", tmp_path / "stopped")
    plain = train_views

    def without(split, domain, batch_size, seed, step):
        return plain(split, domain, batch_size, seed, [0, 2, 3, 4, 6, 7, 8, 9][step])

    monkeypatch.setattr(batches, "train_views", without)
    train_and_evaluate(config, tmp_path / "without")
    equal(tmp_path / "once", tmp_path / "without")


def test_rewinding_ends(pretrained, cache_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "MOST_SKIPPED", 2)
    diverging(set(range(100)), monkeypatch)
    config = config_of(pretrained, cache_dir, on_nan="rewind")
    with pytest.raises(Diverged, match="2 batches have been skipped already"):
        train_and_evaluate(config, tmp_path)


def test_no_room_on_the_device(pretrained, cache_dir, tmp_path, monkeypatch):
    def step(self, index):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.")

    monkeypatch.setattr(devices.OneDomain, "step", step)
    told = r"32 images in 1 parts.*--config.train.accumulate=2.*--config.train.batch_size=16"
    with pytest.raises(MemoryError, match=told):
        train_and_evaluate(config_of(pretrained, cache_dir), tmp_path)
