"""A shortened `make test-faults`: real runs, killed and resumed, end as if they had not been."""

import random

import faults
import pytest


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, faults.whole(folder, ["scratch"])


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_runs_end_as_if_they_had_not_been(seed, base, tmp_path):
    folder, took = base
    tally = faults.Tally()
    seconds = took["scratch"]
    faults.torture("scratch", folder, tmp_path, seconds, 3, random.Random(seed), tally)
    assert tally.compared >= 1
    assert sum(tally.kills.values()) >= 1, tally


def test_a_full_disk_loses_nothing(base, tmp_path):
    folder, _ = base
    tally = faults.Tally()
    faults.full_disk("scratch", folder, tmp_path, tally)
    assert tally.compared == 2
