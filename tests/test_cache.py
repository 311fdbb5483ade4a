"""The decoded cache: built in parallel, once, whole or not at all."""

import io
import subprocess
import sys
import threading
import time

import filelock
import joblib
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from radapt_jax.data import build_cache
from radapt_jax.data.cache import MappedPixels, load_split
from radapt_jax.data.domain import Resizing
from radapt_jax.data.images import decode
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.data.sources.source import Example, Source


def encoded(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def patches(amount):
    """Real patches as PNG files, with labels and numbers."""
    examples = list(open_embedded("surfaces").splits["test"]())
    return [
        Example(f"patch {index}", index % 3, encoded(examples[index % 300].image), 100 + index)
        for index in range(amount)
    ]


def source_of(examples, name="patches", key="1"):
    return Source(name, ("a", "b", "c"), {"train": lambda: examples}, key)


def test_threads_and_processes_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(build_cache, "FEW", 1)  # the rest by processes
    monkeypatch.setattr(build_cache, "CHUNK", 16)
    examples = patches(100)
    split = load_split(source_of(examples), "train", Resizing(20), tmp_path)
    assert split.targets.tolist() == [example.label for example in examples]
    assert split.ids.tolist() == [example.image_id for example in examples]
    for position in (0, 15, 16, 17, 99):
        np.testing.assert_array_equal(split.image(position), decode(examples[position].image, 20))
    whole = np.stack([split.image(position) for position in range(100)]).astype(np.float64)
    mean, std = split.statistics()
    np.testing.assert_allclose(mean, whole.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, whole.std((0, 1, 2)) / 255, rtol=1e-12)


def test_reading_does_not_run_ahead_of_writing(monkeypatch):
    """What waits to be written is bounded, however large the set is."""
    monkeypatch.setattr(build_cache, "CHUNK", 2)
    read = []

    def endless():
        for example in patches(2000):
            read.append(example)
            yield example

    parts = build_cache._decoded(endless(), Resizing(20))
    next(parts)
    time.sleep(0.5)
    assert len(read) <= 2 * build_cache.WINDOW * min(joblib.cpu_count(), build_cache.MOST_CORES)
    parts.close()


def test_unreadable_images_are_left_out_and_counted(tmp_path, caplog):
    examples = patches(20)
    examples[3] = examples[3]._replace(image=examples[3].image[:200])
    with pytest.raises(
        ValueError, match=r"1 of 20 images of train.*1\.00% may be.*patch 3"
    ) as kept:
        load_split(source_of(examples), "train", Resizing(20), tmp_path, max_unreadable=0.01)
    assert kept.value.__traceback__ is not None  # an error that is kept does not keep the lock
    assert not list(tmp_path.glob("[!.]*"))
    split = load_split(source_of(examples), "train", Resizing(20), tmp_path, max_unreadable=0.05)
    assert "patch 3" in caplog.text
    assert (len(split), split.unread, split.left_out) == (19, (103,), 1)
    assert split.subset(np.arange(5)).left_out == 0
    with pytest.raises(ValueError, match="1 of 20"):  # from the cache too
        load_split(source_of(examples), "train", Resizing(20), tmp_path, max_unreadable=0.01)


def test_labels_for_all_or_for_none(tmp_path):
    hidden = [example._replace(label=-1) for example in patches(6)]
    assert not load_split(source_of(hidden, key="2"), "train", Resizing(20), tmp_path).labelled
    mixed = [patches(1)[0], *hidden[1:]]
    with pytest.raises(ValueError, match="5 of 6 images"):
        load_split(source_of(mixed, key="3"), "train", Resizing(20), tmp_path)
    wrong = [patches(1)[0]._replace(label=3)]
    with pytest.raises(ValueError, match="found label 3; expected 0 to 2"):
        load_split(source_of(wrong, key="4"), "train", Resizing(20), tmp_path)


KILLED = """
import sys, os, signal
sys.path.insert(0, {tests!r})
import test_cache
from radapt_jax.data.cache import load_split
from radapt_jax.data.domain import Resizing
def examples():
    yield from test_cache.patches(300)
    os.kill(os.getpid(), signal.SIGKILL)
source = test_cache.source_of(examples())
load_split(source, "train", Resizing(20), __import__("pathlib").Path({cache!r}))
"""


def test_a_killed_build_leaves_nothing_that_is_read(tmp_path):
    script = KILLED.format(tests=str(ROOT / "tests"), cache=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == -9
    assert list(tmp_path.glob(".*.new"))
    assert not list(tmp_path.glob("[!.]*"))
    other = source_of(patches(4), name="other")
    load_split(other, "train", Resizing(20), tmp_path)  # clears away what the kill has left
    assert not list(tmp_path.glob(".*.new"))
    assert len(load_split(source_of(patches(300)), "train", Resizing(20), tmp_path)) == 300


def test_of_two_that_want_the_same_cache_one_builds(tmp_path, caplog):
    """The other waits for the lock, and then reads; here the builder is this test."""
    caplog.set_level("INFO", "radapt_jax")
    source, examples = source_of(patches(8)), patches(8)
    folder = load_split(source, "train", Resizing(20), tmp_path / "first")
    (built,) = (tmp_path / "first").glob("[!.]*")
    second = tmp_path / "second"
    second.mkdir()
    silent = Source(source.name, source.classes, {"train": lambda: 1 / 0}, source.key)
    found = []
    with filelock.FileLock(second / f".{built.name}.lock"):
        waiting = threading.Thread(
            target=lambda: found.append(load_split(silent, "train", Resizing(20), second))
        )
        waiting.start()
        time.sleep(0.5)
        assert not found
        built.rename(second / built.name)
    waiting.join(30)
    assert len(found[0]) == len(folder) == len(examples)
    assert "another process decodes" in caplog.text


def test_pages_of_a_large_file_are_given_back(tmp_path, monkeypatch):
    """The values stay right after the pages went; how much stays resident is a benchmark's."""
    values = np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8)
    (tmp_path / "pixels.u8").write_bytes(values.tobytes())
    monkeypatch.setattr("radapt_jax.data.cache.RESIDENT_LIMIT", 1 << 16)
    pixels = MappedPixels(tmp_path / "pixels.u8")
    for start in range(0, len(values), 1 << 16):
        np.testing.assert_array_equal(pixels.values[start : start + 100], values[start:][:100])
        pixels.count(1, 100)
    np.testing.assert_array_equal(pixels.values, values)


def test_images_resized_in_two_ways_are_kept_apart(tmp_path):
    examples, splits = patches(3), {}
    for interpolation in ("bicubic", "bilinear"):
        resizing = Resizing(20, interpolation=interpolation)
        for _ in range(2):  # built, and read again
            splits[interpolation] = load_split(source_of(examples), "train", resizing, tmp_path)
        for position, example in enumerate(examples):
            found = splits[interpolation].image(position)
            np.testing.assert_array_equal(found, decode(example.image, *resizing))
    assert len(list(tmp_path.glob("[!.]*"))) == 2
    assert not np.array_equal(*(split.image(0) for split in splits.values()))
