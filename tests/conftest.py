"""Eight host devices, programs that are compiled quickly and kept, and small real domains."""

import os
from pathlib import Path

# LLVM takes a quarter of the time of a test to make its small programs fast.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES} {QUICKLY}"
CACHE = Path(os.environ.get("RADAPT_TEST_CACHE", "~/.cache/radapt_jax")).expanduser()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax
import numpy as np
import process
import pytest
from PIL import Image

from radapt_jax.data.load import load_domain
from radapt_jax.data.sources.embedded import open_embedded

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
SMALL = {"source": "embedded", "dir": "", "size": 16, "resize": 16, "squash": False}
SMALL["val_fraction"] = 0.1


@pytest.fixture(scope="module", autouse=True)
def bounded(request):
    """Hold a module to what a process may take; the next one starts without its programs."""
    yield
    if process.KNOWN:
        process.give_back()
        found = process.maps(), process.resident()
        process.drop_programs()
        process.check(*found, request.module.__name__)


@pytest.fixture
def compilations():
    """A list that grows by one whenever XLA compiles a program."""
    found = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def digits(cache_dir):
    """The embedded digits at 16 pixels."""
    return load_domain("digits", SMALL, {"crop": "centre", "flip": False}, cache_dir)


@pytest.fixture(scope="session")
def faces(cache_dir):
    """The embedded faces at 20 pixels, randomly cropped to 16."""
    return load_domain("faces", {**SMALL, "resize": 20}, {}, cache_dir)


@pytest.fixture(scope="session")
def surface_images():
    """Forty real patches, uint8 (40, 40, 40, 3), with labels."""
    examples = list(open_embedded("surfaces").splits["test"]())[::10][:30]
    return np.stack([example.image for example in examples]), [e.label for e in examples]


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """A folder domain `rocks`: train and test, three named classes, 4 and 2 images of each."""
    root = tmp_path_factory.mktemp("folders")
    source = open_embedded("surfaces")
    for split, amount in (("train", 4), ("test", 2)):
        seen = dict.fromkeys(range(3), 0)
        for example in source.splits[split]():
            if seen[example.label] < amount:
                folder = root / "rocks" / split / source.classes[example.label]
                folder.mkdir(parents=True, exist_ok=True)
                name = folder / f"{seen[example.label]}.png"
                Image.fromarray(example.image).resize((40, 32 + 4 * example.label)).save(name)
                seen[example.label] += 1
    return root
