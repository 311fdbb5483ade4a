"""Domains and the facts of the Visual Decathlon."""

import dataclasses
import json

import pytest
from conftest import SHARED

from radapt_jax import DECATHLON, Domain
from radapt_jax.data.decathlon.facts import known_options

FACTS = {"name": "svhn", "classes": ("0", "1"), "mean": (0.4, 0.4, 0.5), "std": (0.2, 0.2, 0.2)}


def test_json_round_trip():
    domain = Domain(**FACTS, size=32, resize=36, flip=False, adapter_decay=1e-4)
    assert Domain.from_json(json.loads(json.dumps(domain.to_json()))) == domain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "a/b"),
        ({"name": ".."}, "domain name"),
        ({"name": ""}, "domain name"),
        ({"classes": ()}, "no classes"),
        ({"std": (0.2, 0.0, 0.2)}, r"\(0, inf\)"),
        ({"size": 0}, "size 0"),
        ({"size": 64, "resize": 60}, "below size"),
        ({"crop": "center"}, "'centre'"),
    ],
)
def test_bad_facts_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Domain(**{**FACTS, **change})


def test_decay_of_the_paper_goes_with_the_name():
    assert known_options("vgg_flowers") == known_options("vgg-flowers")
    assert known_options("aircraft")["adapter_decay"] == 2e-3
    assert known_options("omniglot") == {"crop": "centre", "flip": False, "adapter_decay": 5e-4}
    assert known_options("my_images") == {}


@pytest.mark.skipif(not (SHARED / "facts").is_dir(), reason="the facts file is not here")
def test_decathlon_facts_are_those_of_the_facts_file():
    facts = json.loads((SHARED / "facts" / "decathlon.json").read_text())
    assert list(DECATHLON) == facts["domain_order"]
    for name, ours in DECATHLON.items():
        theirs = facts["domains"][name]
        assert dataclasses.asdict(ours) == {
            "num_classes": theirs["num_classes"],
            "category_base": theirs["category_id_of_label_0"],
            "mean": tuple(theirs["mean"]),
            "std": tuple(theirs["std"]),
            "adapter_decay": theirs["adapter_weight_decay"],
            "augment": theirs["horizontal_flip"],
            "baseline": theirs["baseline_accuracy_percent"],
        }
