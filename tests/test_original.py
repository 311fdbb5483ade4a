"""Weights of the original PyTorch code as a family: it predicts, and new domains start from it."""

import re

import numpy as np
import pytest
from conftest import ROOT
from families import empty_family
from test_end_to_end import small
from test_parity import load, network, state_dict

import radapt_jax
from radapt_jax import Family, family_of_original, loop, serving, trees

KINDS = {"bn_scratch": "none", "parallel_11": "parallel", "series_11": "series"}


def state_of(name):
    return state_dict(load(name), "state/")


@pytest.mark.parametrize("name", KINDS)
def test_a_family_of_the_original_predicts_as_it_did(name):
    arrays = load(name)
    family = family_of_original(state_of(name))
    facts = family["imagenet12"]
    assert (facts.spec.adapter, family.shared.adapter) == (KINDS[name], KINDS[name])
    assert facts.spec.width == float(arrays["hyper/factor"])
    assert facts.domain.classes == ("0", "1", "2", "3", "4")
    variables = family.variables("imagenet12")
    found = serving.probabilities(
        network(name, arrays, 0), variables, arrays["x"].transpose(0, 2, 3, 1), None, None
    )
    logits = arrays["eval_logits"] - arrays["eval_logits"].max(1, keepdims=True)
    np.testing.assert_allclose(
        found, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-5
    )


def test_adapters_on_second_convolutions_alone():
    state = state_of("parallel_11")
    fewer = {key: value for key, value in state.items() if ".conv1.parallel_conv." not in key}
    assert family_of_original(fewer)["imagenet12"].spec.convs == ("second",)


def test_facts_of_the_source_are_taken_and_checked():
    state = state_of("parallel_2tasks")
    classes = list("abcdefg")
    family = family_of_original(
        state, domain=1, name="letters", classes=classes, size=32, resize=40
    )
    assert family.domains == ["letters"]
    assert family["letters"].domain.classes == tuple(classes)
    assert (family["letters"].domain.size, family.shared.source) == (32, "letters")
    wide = {key: value.astype(np.float64) for key, value in state.items()}
    assert family_of_original(wide).fingerprint == family.fingerprint
    with pytest.raises(ValueError, match="found 7 class names for a head of 5 classes"):
        family_of_original(state, classes=classes)
    with pytest.raises(ValueError, match="found no filter of pre_layers_conv"):
        family_of_original({key: state[key] for key in state if key.startswith("linears")})


def start_of_digits(init_from, cache_dir, workdir, monkeypatch, **changes):
    """Return the variables that a run on digits starts from."""
    starts = []

    def instead(jobs, *_):
        starts.extend(job.variables for job in jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_domains", instead)
    changes = {"domains": "digits", "init_from": str(init_from), **changes}
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(small("linear", cache_dir, **changes), workdir)
    return trees.flatten(starts[0])


def test_new_domains_start_from_its_norms(cache_dir, tmp_path, monkeypatch, caplog):
    """The README's line, run as it stands."""
    (line,) = re.findall(
        r"`(radapt_jax\.family_of_original\(.*save.*)`", (ROOT / "README.md").read_text()
    )
    monkeypatch.chdir(tmp_path)
    state_dict = state_of("parallel_11")
    exec(line, {"radapt_jax": radapt_jax, "state_dict": state_dict})
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
