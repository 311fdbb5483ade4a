"""Training states come back bit for bit, or are refused, set aside, and the one before is used."""

import os
import shutil

import chex
import numpy as np
import pytest

from radapt_jax.train import checkpoints as train_checkpoints
from radapt_jax.train.checkpoints import TrainingCheckpoints

STREAM = np.random.default_rng(0)
SMOOTH = np.linspace(0, 1, 96, dtype=np.float32).reshape(3, 32)


def state_of(step):
    """A state with all that training states have: numbers, noise, zeros, and empty nodes."""
    noise = np.random.default_rng(step).normal(size=(16, 64)).astype(np.float32)
    return {
        "step": np.array(step, np.int32),
        "adapters": {"stem": {"kernel": noise, "scale": SMOOTH + step}},
        "opt_state": {"0": {}, "1": {"trace": np.zeros(7, np.float32)}},
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 10 (the best), 20 and 30, as `<...>/training`."""
    folder = tmp_path_factory.mktemp("saved") / "training"
    with TrainingCheckpoints(folder) as checkpoints:
        for step, top1 in ((5, 10.0), (10, 60.0), (15, 20.0), (20, 30.0), (30, 40.0)):
            checkpoints.save(step, state_of(step), top1, {})
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "30"]
    return folder


@pytest.fixture
def training(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "training")


def flipped(path, position, bit):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def kinds(folder):
    """Return every file of a state, by a name that tells what it is."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path for path in sorted(files)}


def opened(training):
    """Open the checkpoints; return the latest step. What is not refused is what was saved."""
    with TrainingCheckpoints(training) as checkpoints:
        for step, top1 in checkpoints.top1().items():
            assert top1 == {10: 60.0, 20: 30.0, 30: 40.0}[step]
            chex.assert_trees_all_equal(checkpoints.load(step, state_of(0)), state_of(step))
        return checkpoints.latest


def test_a_flipped_bit_is_never_gone_on_with(saved, tmp_path):
    """In every file of the latest state, at its ends and at random: the same values, or refused."""
    refused = set()
    for name, path in kinds(saved / "30").items():
        size = path.stat().st_size
        spots = {0, size - 1, *STREAM.integers(0, size, 3).tolist()} if size else ()
        for spot in spots:
            training = shutil.copytree(saved, tmp_path / "training")
            flipped(training / "30" / name, spot, STREAM.integers(8))
            latest = opened(training)
            assert latest in (20, 30)
            assert (training / "damaged-30").is_dir() == (latest == 20)
            if latest == 20:
                refused.add(name.split("/")[-2 if "/d/" in name else -1])
            shutil.rmtree(training)
    assert {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "d"} <= refused


def test_orbax_alone_would_not_notice(training):
    """Why there is a checksum: some flips go through Orbax's reading without a word."""
    from orbax.checkpoint import v1 as ocp

    silent = 0
    for path in (training / "30").rglob("d/*"):
        whole = path.read_bytes()
        for spot in STREAM.integers(0, len(whole), 20):
            flipped(path, spot, 0)
            try:
                found = ocp.load(training / "30")
                chex.assert_trees_all_equal(found, state_of(30))
            except AssertionError:
                silent += 1
                with pytest.raises(ValueError, match="not those that were saved"):
                    train_checkpoints._read(training / "30")
            except Exception:  # noticed
                pass
            path.write_bytes(whole)
    assert silent


@pytest.mark.parametrize("how", ["cut", "empty", "deleted"])
def test_files_that_are_cut_or_gone(how, saved, tmp_path):
    for name in kinds(saved / "30"):
        training = shutil.copytree(saved, tmp_path / "training")
        path = training / "30" / name
        if how == "deleted":
            path.unlink()
        else:
            os.truncate(path, path.stat().st_size // 2 if how == "cut" else 0)
        assert opened(training) in (20, 30)
        shutil.rmtree(training)


def without_arrays(folder):
    shutil.rmtree(folder / "state")


def without_anything(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def without_a_checksum(folder):
    path = folder / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("sha256", "sha257"))


def with_another_top1(folder):
    path = folder / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("40.0", "90.0"))


DAMAGES = (without_arrays, without_anything, without_a_checksum, with_another_top1)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_used_and_the_log_says_so(damage, training, caplog):
    damage(training / "30")
    (training / "40.orbax-checkpoint-tmp" / "state").mkdir(parents=True)  # as a kill leaves it
    (training / ".15.old").mkdir()
    assert opened(training) == 20
    (told,) = caplog.messages
    assert f"{training}/30 is damaged" in told
    assert f"now {training}/damaged-30; training goes on from step 20" in told
    assert sorted(path.name for path in training.iterdir()) == ["10", "20", "damaged-30"]
    with TrainingCheckpoints(training) as checkpoints:  # the same step comes again
        checkpoints.save(30, state_of(30), 40.0, {})
    assert opened(training) == 30
    assert len(caplog.messages) == 1


def test_where_none_is_left_training_starts_from_the_beginning(training, caplog):
    for step in (10, 20, 30):
        without_arrays(training / str(step))
    assert opened(training) is None
    assert len(caplog.messages) == 3
    assert all("training starts from the beginning" in told for told in caplog.messages)


def test_a_damaged_best_state(training, caplog):
    """Found on opening, the next best is told; found later, it is refused with what to do."""
    with TrainingCheckpoints(training) as checkpoints:
        assert checkpoints.best == 10
        without_arrays(training / "10")
        with pytest.raises(ValueError, match=r"10 is damaged(.|\n)*Start the same command again"):
            checkpoints.load(checkpoints.best, state_of(0))
    assert caplog.messages == []
    with TrainingCheckpoints(training) as checkpoints:
        assert (checkpoints.best, checkpoints.latest) == (30, 30)
    assert "the best state left is of step 30" in caplog.messages[0]


def test_a_state_of_another_network_is_no_damaged_one(training, caplog):
    with TrainingCheckpoints(training) as checkpoints:
        other = state_of(0)
        other["adapters"]["stem"]["kernel"] = np.zeros((16, 65), np.float32)
        with pytest.raises(ValueError, match=r"kernel: found \(16, 64\).*expected \(16, 65\)"):
            checkpoints.load(30, other)
    assert caplog.messages == []
    assert opened(training) == 30


def test_a_save_that_fails_leaves_the_others(training, monkeypatch):
    """A full disk is told by the next call that waits for it, once."""

    def full():
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    class UnderWay:
        result = staticmethod(full)

    with TrainingCheckpoints(training) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(train_checkpoints.ocp, "save_async", lambda *_, **__: UnderWay)
            checkpoints.save(40, state_of(40), 50.0, {})
        with pytest.raises(OSError, match=r"40 could not be saved(.|\n)*No space left(.|\n)*room"):
            checkpoints.top1()
        assert checkpoints.top1() == {10: 60.0, 20: 30.0, 30: 40.0}
    assert opened(training) == 30
