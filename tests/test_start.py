"""What a new domain starts from: the norms of the source domain, wherever they can be had."""

import dataclasses
import re
import shutil

import chex
import numpy as np
import pytest
from conftest import ROOT
from families import empty_family, member_of
from test_end_to_end import small
from test_parity import load, state_dict

import radapt_jax
import radapt_jax as rj
from radapt_jax import Family
from radapt_jax.compress.family import compress_family
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.experiment import run
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.family.start import start_variables
from radapt_jax.utils import trees


def start_of_digits(init_from, cache_dir, workdir, monkeypatch, recipe="linear"):
    """Return the variables that a run on digits starts from."""
    starts = []

    def instead(jobs, *_):
        starts.extend(job.variables for job in jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train_domains", instead)
    changes = {"domains": "digits", "init_from": str(init_from)}
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(small(recipe, cache_dir, **changes), workdir)
    return trees.flatten(starts[0])


def test_new_domains_start_from_the_norms_of_the_original(cache_dir, tmp_path, monkeypatch, caplog):
    """The line of docs/networks.md, run as it stands."""
    (line,) = re.findall(
        r"`(radapt_jax\.family_of_original\(.*save.*)`", (ROOT / "docs" / "networks.md").read_text()
    )
    monkeypatch.chdir(tmp_path)
    state = state_dict(load("parallel_11"), "state/")
    exec(line, {"radapt_jax": radapt_jax, "state_dict": state})
    original = Family.load("runs/original")
    start = start_of_digits("runs/original", cache_dir, tmp_path / "run", monkeypatch)
    source = trees.flatten(original.variables("imagenet12"))
    for path, leaf in start.items():
        if "/head/" not in path:
            np.testing.assert_array_equal(leaf, source[path], err_msg=path)
    assert np.abs(start["batch_stats/stem_norm/mean"]).max() > 0
    assert "identity norms" not in caplog.text


def test_a_start_from_identity_norms_is_said(cache_dir, tmp_path, monkeypatch, caplog):
    empty_family().save(tmp_path / "bare")
    start = start_of_digits(tmp_path / "bare", cache_dir, tmp_path / "run", monkeypatch)
    assert (start["adapters/stem_norm/scale"] == 1).all()
    assert "digits: starts from identity norms" in caplog.text


@pytest.fixture
def whole(digits, faces, tmp_path):
    """A saved family: its source domain `pictures`, and `faces`."""
    shared = dataclasses.replace(empty_family().shared, source="pictures")
    source = member_of(digits, "none", 1)
    source = dataclasses.replace(source, domain=dataclasses.replace(source.domain, name="pictures"))
    family = Family(shared, [source, member_of(faces, "parallel", 2)])
    family.save(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("at_most", [None, 1])
def test_a_part_of_a_family_is_saved_with_its_source(
    at_most, whole, cache_dir, tmp_path, monkeypatch, caplog
):
    part = Family.load(whole, ["faces"], at_most=at_most)
    assert part.domains == ["faces"]
    part.save(tmp_path / "part")
    found = Family.load(tmp_path / "part")
    assert found.domains == ["pictures", "faces"]
    start = start_of_digits(tmp_path / "part", cache_dir, tmp_path / "run", monkeypatch)
    source = Family.load(whole).variables("pictures")
    np.testing.assert_array_equal(
        start["batch_stats/norm/mean"], source["batch_stats"]["norm"]["mean"]
    )
    assert "identity norms" not in caplog.text
    shutil.rmtree(whole / "domains" / "pictures")
    with pytest.raises(FileNotFoundError, match="'pictures'"):
        part.save(tmp_path / "late")
    assert not (tmp_path / "late").exists()


def test_a_source_that_was_removed_is_said_to_be_missing(
    whole, cache_dir, tmp_path, monkeypatch, caplog
):
    family = Family.load(whole)
    family.remove("pictures")
    family.save(tmp_path / "less")
    start = start_of_digits(tmp_path / "less", cache_dir, tmp_path / "run", monkeypatch)
    assert (start["adapters/norm/scale"] == 1).all()
    assert "no source domain 'pictures'" in caplog.text


def test_a_family_without_domains_can_be_joined(digits, cache_dir, tmp_path, monkeypatch):
    """Its β have ranks of their own, which the new domain takes."""
    dense = empty_family()
    dense.add("digits", member_of(digits, "parallel", 1))
    shared = compress_family(dense, "joint", rank_rule("uniform", share=0.25)).shared
    Family(shared).save(tmp_path / "bare")
    start = start_of_digits(tmp_path / "bare", cache_dir, tmp_path / "run", monkeypatch, "join")
    for conv, rank in shared.basis.ranks.items():
        assert start[f"adapters/{conv}/adapter/gamma"].shape[0] == rank


def test_filters_of_the_sources_own_are_not_those_of_new_domains(digits):
    """Domains are served on the family's, whatever its source was finetuned to."""
    family = rj.Family(dataclasses.replace(empty_family().shared, source="digits"))
    family.add("digits", member_of(digits, "none", 1, own_weights=True))
    assert family["digits"].has_own_weights
    spec = rj.ModelSpec(family.shared.backbone, rj.Parallel())
    start = start_variables(family, spec, "new", 4, 0)
    chex.assert_trees_all_equal(start["params"], family.shared.params_for(spec))
