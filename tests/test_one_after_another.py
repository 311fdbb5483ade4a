"""A process that serves many domains one after another holds so many programs, and no more."""

import itertools
import json
import os
import subprocess
import sys

import process
import pytest
from conftest import ROOT

COUNT = 30
MOST, ONE = 3_000, 1_500  # maps above which programs are dropped; those of one domain, at most


@pytest.mark.skipif(not process.KNOWN, reason="there is no /proc here")
def test_maps_do_not_grow_with_the_domains(tmp_path):
    """Thirty class counts, with and without adapters: trained, evaluated, folded and exported."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "one_after_another.py", tmp_path, str(COUNT), str(MOST)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    maps = json.loads(done.stdout.splitlines()[-1])
    assert len(maps) == COUNT
    assert any(later < earlier for earlier, later in itertools.pairwise(maps))  # some were dropped
    assert max(maps) < MOST + ONE
