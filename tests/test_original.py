"""Weights of the original PyTorch code as a family that predicts."""

import numpy as np
import pytest
from test_parity import load, network, state_dict

from radapt_jax import family_of_original
from radapt_jax.family.predict import probabilities

KINDS = {"bn_scratch": "none", "parallel_11": "parallel", "series_11": "series"}


def state_of(name):
    return state_dict(load(name), "state/")


@pytest.mark.parametrize("name", KINDS)
def test_a_family_of_the_original_predicts_as_it_did(name):
    arrays = load(name)
    family = family_of_original(state_of(name))
    facts = family["imagenet12"]
    assert (facts.spec.adapter.kind, family.shared.adapter) == (KINDS[name], KINDS[name])
    assert facts.spec.backbone.width == float(arrays["hyper/factor"])
    assert facts.domain.classes == ("0", "1", "2", "3", "4")
    variables = family.variables("imagenet12")
    found = probabilities(
        network(name, arrays, 0), variables, arrays["x"].transpose(0, 2, 3, 1), None, None
    )
    logits = arrays["eval_logits"] - arrays["eval_logits"].max(1, keepdims=True)
    np.testing.assert_allclose(
        found, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-5
    )


def test_adapters_on_second_convolutions_alone():
    state = state_of("parallel_11")
    fewer = {key: value for key, value in state.items() if ".conv1.parallel_conv." not in key}
    assert family_of_original(fewer)["imagenet12"].spec.placement.convs == ("second",)


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
