"""The family: adding, swapping, predicting, preprocessing, saving."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import network, of_classes, whole
from PIL import Image

from radapt_jax import (
    Family,
    LowRank,
    Member,
    ModelSpec,
    ResNet26,
    Shared,
    initial_variables,
)
from radapt_jax.data.pixels import HostPixels
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.data.views import eval_views
from radapt_jax.family import predictor
from radapt_jax.family.predict import predict_mixed


def spec(kind, width=0.125):
    return network(kind, width=width, init="he_normal")


def member(data, kind, seed, own_weights=False, width=0.125):
    variables = initial_variables(spec(kind, width), data.domain.num_classes, seed)
    if not own_weights:
        del variables["params"]
    return Member(data.domain, spec(kind, width), variables, method=kind)


@pytest.fixture
def family(digits, faces):
    shared = Shared(initial_variables(spec("none"), 2, seed=0)["params"], ResNet26(0.125))
    family = Family(shared)
    family.add("digits", member(digits, "parallel", seed=1))
    family.add("letters", member(digits, "parallel", seed=2))
    family.add("faces", member(faces, "series", seed=3))
    family.add("own", member(digits, "none", seed=4, own_weights=True))
    return family


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(6))


@pytest.mark.parametrize("domain", ["digits", "letters", "faces", "own"])
def test_predict_is_apply_and_softmax(domain, family, pixels):
    facts = family[domain].domain
    normalised = np.asarray((pixels / 255 - np.array(facts.mean)) / np.array(facts.std), np.float32)
    model = family[domain].spec.build(facts.num_classes)
    logits = model.apply(family.variables(domain), normalised, train=False)
    expected = jax.nn.softmax(logits)
    for images in (pixels, normalised, normalised.astype(np.float64)):
        found = family.predict(images, domain=domain)
        assert found.shape == (6, facts.num_classes)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_domains_differ_and_come_back(family, pixels):
    first = family.predict(pixels, domain="digits")
    assert np.abs(first - family.predict(pixels, domain="letters")).max() > 1e-3
    np.testing.assert_array_equal(first, family.predict(pixels, domain="digits"))


def test_predict_compiles_once_per_batch_shape(family, pixels, compilations):
    family.add("eight", member(of_classes(family["digits"], 8), "parallel", seed=5))
    for domain in ("digits", "letters", "eight"):
        family.predict(pixels[:5], domain=domain)  # pads heads, which compiles too
    before = len(compilations)
    for domain in ("digits", "letters", "eight", "digits"):  # one kind, 8 and 10 classes
        family.predict(pixels[:5], domain=domain)
    assert len(compilations) == before
    family.predict(pixels[:4], domain="letters")
    assert len(compilations) == before + 1
    family.predict(pixels[:4], domain="eight")
    assert len(compilations) == before + 1


def test_many_images_take_one_program_and_the_memory_of_a_batch(family, digits, compilations):
    """With a batch size below the number of images: the same results, and batches of that size."""
    pixels = whole(digits.splits["test"], range(19))
    names = ["digits", "letters"] * 9 + ["digits"]
    folded = family.fold("digits")
    ways = {
        "one": lambda many, **size: family.predict(pixels[:many], domain="digits", **size),
        "mixed": lambda many, **size: family.predict(pixels[:many], domains=names[:many], **size),
        "folded": lambda many, **size: folded.predict(pixels[:many], **size),
    }
    for what, predict in ways.items():
        expected = predict(19)
        predict(6, batch_size=5)
        before = len(compilations)
        for many in (19, 15, 11):
            found = predict(many, batch_size=5)
            np.testing.assert_allclose(found, expected[:many], atol=2e-6, err_msg=what)
        assert len(compilations) == before, what
        with pytest.raises(ValueError, match="found batch_size 0; expected a whole number from 1"):
            predict(2, batch_size=0)


def test_a_mixed_batch_of_several_kinds_is_cut_too(family, digits, monkeypatch):
    pixels = whole(digits.splits["test"], range(18))
    names = ["digits", "letters", "faces", "own", "letters", "digits"] * 3
    expected = family.predict(pixels, domains=names)
    sizes = []
    plain = predict_mixed

    def spy(*arguments):
        sizes.append(len(arguments[3]))
        return plain(*arguments)

    monkeypatch.setattr(predictor, "predict_mixed", spy)
    found = family.predict(pixels, domains=names, batch_size=5)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert sorted(sizes) == [4, 4, 5, 5, 5]


def test_shared_weights_are_one_array(family):
    """Swapping moves no shared weight: every domain hands out the same buffers."""
    first, second = (family.variables(name)["params"] for name in ("digits", "faces"))
    assert all(a is b for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    own = family.variables("own")["params"]
    assert not np.array_equal(own["stem"]["kernel"], first["stem"]["kernel"])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((16, 16, 3), np.uint8), r"image\[None\]"),
        (np.zeros((1, 16, 16, 1), np.uint8), "expected"),
        (np.zeros((1, 16, 16, 3), np.int32), "int32"),
        (np.zeros((1, 16, 20, 3), np.uint8), "multiples of 8"),
        (np.full((1, 16, 16, 3), np.nan, np.float32), "NaN"),
    ],
)
def test_bad_images_are_refused(images, message, family):
    with pytest.raises(ValueError, match=message):
        family.predict(images, domain="digits")


def test_no_images_no_predictions(family):
    assert family.predict(np.zeros((0, 16, 16, 3), np.uint8), domain="faces").shape == (0, 2)
    assert family.preprocess([], domain="digits").shape == (0, 16, 16, 3)


def test_unknown_domain_lists_those_there_are(family, pixels):
    with pytest.raises(KeyError, match=r"svhn.*digits"):
        family.predict(pixels, domain="svhn")


def test_preprocess_is_evaluation(family, faces, surface_images, tmp_path):
    """Arrays, PIL images and files give what the evaluation step sees."""
    raw = surface_images[0][:3]
    images = [raw[0], Image.fromarray(raw[1]), tmp_path / "image.png"]
    Image.fromarray(raw[2]).save(images[2])
    found = family.preprocess(images, domain="faces")
    assert found.dtype == np.uint8
    assert found.shape == (3, 16, 16, 3)
    assert family.preprocess(raw[0], domain="faces").shape == (1, 16, 16, 3)
    np.testing.assert_array_equal(family.preprocess(raw, domain="faces"), found)
    np.testing.assert_array_equal(family.preprocess(str(images[2]), domain="faces"), found[2:])
    stored = [example.image for example in open_embedded("faces").splits["test"]()]
    split = faces.splits["test"]
    views = eval_views(split, faces.domain, np.arange(len(split)))
    seen = HostPixels(split, 16).cut(views)["image"]
    np.testing.assert_array_equal(family.preprocess(stored, domain="faces"), seen)
    with pytest.raises(FileNotFoundError):
        family.preprocess(tmp_path / "none.png", domain="faces")


def test_preprocess_takes_images_in_whatever_they_come(family, digits, surface_images, tmp_path):
    colours = surface_images[0][:3]
    expected = family.preprocess(colours, domain="faces")
    opaque = np.full((*colours.shape[:3], 1), 255, np.uint8)
    Image.fromarray(colours[0]).save(tmp_path / "image.png")
    as_several = {
        "jax": jnp.asarray(colours),
        "a list of jax": [jnp.asarray(image) for image in colours],
        "a generator": (image for image in colours),
        "RGBA": np.concatenate([colours, opaque], -1),
        "objects": np.array([*map(Image.fromarray, colours), None], object)[:3],
    }
    for what, images in as_several.items():
        found = family.preprocess(images, domain="faces")
        np.testing.assert_array_equal(found, expected, err_msg=what)
    as_one = {
        "jax": jnp.asarray(colours[0]),
        "RGBA": np.concatenate([colours, opaque], -1)[0],
        "paths": np.array([str(tmp_path / "image.png")]),
    }
    for what, images in as_one.items():
        found = family.preprocess(images, domain="faces")
        np.testing.assert_array_equal(found, expected[:1], err_msg=what)
    grey = colours[..., 0]
    expected = family.preprocess(np.repeat(grey[..., None], 3, -1), domain="faces")
    for images in (grey, grey[..., None], list(grey), jnp.asarray(grey)):
        np.testing.assert_array_equal(family.preprocess(images, domain="faces"), expected)
    np.testing.assert_array_equal(family.preprocess(grey[0], domain="faces"), expected[:1])
    np.testing.assert_array_equal(family.fold("faces").preprocess(grey), expected)
    with pytest.raises(ValueError, match=r"array of uint8 \(9,\)"):
        family.preprocess(np.zeros(9, np.uint8), domain="faces")


def test_names_of_domains_come_in_any_iterable(family, pixels, tmp_path):
    names = ["digits", "faces", "letters", "own", "digits", "faces"]
    expected = family.predict(pixels, domains=names)
    for same in (np.array(names), tuple(names), iter(names)):
        np.testing.assert_array_equal(family.predict(pixels, domains=same), expected)
    family.save(tmp_path)
    assert Family.load(tmp_path, "digits").domains == ["digits"]
    assert Family.load(tmp_path, np.array(["own", "digits"])).domains == ["digits", "own"]


def test_what_is_no_member_is_refused(family):
    own = dict(family["digits"].variables)
    with pytest.raises(TypeError, match="found dict for domain 'more'; expected a Member"):
        family.add("more", own)
    assert "more" not in family


def test_a_repr_is_short(family):
    assert repr(family["digits"]) == (
        "Member('digits', 10 classes, resnet26, width 0.125, adapter 'parallel', "
        f"{family.parameters('digits'):,} parameters)"
    )
    assert repr(family.shared).startswith("Shared(resnet26, width 0.125, source None, adapter")
    assert "4 domains: digits, faces, letters, own)" in repr(family)
    for index in range(20):
        family.add(f"more{index}", family["digits"])
    assert "more12, ... and 16 more)" in repr(family)
    for it in (family, family.shared, family["digits"]):
        assert repr(it).count("\n") < 3
        assert len(repr(it)) < 300


def test_a_domain_of_other_shared_weights_is_refused_with_both_sides(family, digits):
    other = dataclasses.replace(member(digits, "parallel", seed=1), shared="a90b" * 16)
    before = family.domains
    with pytest.raises(ValueError, match="other shared weights") as error:
        family.add("svhn", other)
    assert family.fingerprint[:12] in str(error.value)
    assert "a90ba90ba90b" in str(error.value)
    assert "config.domains=svhn" in str(error.value)
    assert family.domains == before
    own = dataclasses.replace(member(digits, "none", 1, own_weights=True), shared="a90b" * 16)
    family.add("svhn", own)  # with weights of its own it needs none of ours


def test_a_domain_of_another_network_is_refused(family, digits):
    with pytest.raises(ValueError, match=r"width 0\.125\n.*width 0\.25"):
        family.add("wide", member(digits, "parallel", seed=1, width=0.25))
    mixed = dataclasses.replace(member(digits, "parallel", seed=1), spec=spec("none"))
    with pytest.raises(ValueError, match="does not fit"):
        family.add("mixed", mixed)
    fewer = dataclasses.replace(digits.domain, classes=digits.domain.classes[:9])
    with pytest.raises(ValueError, match=r"found \(32, 10\) float32, expected \(32, 9\) float32"):
        family.add("nine", dataclasses.replace(member(digits, "none", seed=1), domain=fewer))
    with pytest.raises(ValueError, match="domain name"):
        family.add("a/b", member(digits, "parallel", seed=1))


def test_save_and_load(family, pixels, tmp_path):
    family.save(tmp_path)
    found = Family.load(tmp_path)
    assert sorted(found.domains) == sorted(family.domains)
    assert found.fingerprint == family.fingerprint
    for domain in family:
        chex.assert_trees_all_equal(found.variables(domain), family.variables(domain))
        np.testing.assert_array_equal(
            found.predict(pixels, domain=domain), family.predict(pixels, domain=domain)
        )
    assert Family.load(tmp_path, ["faces"]).domains == ["faces"]
    other = Family(dataclasses.replace(family.shared, params=found.variables("own")["params"]))
    with pytest.raises(ValueError, match="holds a family of other shared weights"):
        other.save(tmp_path)
    assert sorted(Family.load(tmp_path).domains) == sorted(family.domains)
    moved = Family(family.shared)
    moved.add("numbers", found["digits"])
    np.testing.assert_array_equal(
        moved.predict(pixels, domain="numbers"), family.predict(pixels, domain="digits")
    )


def test_parameters_are_counted_as_in_the_paper(digits):
    """Width 1: nine parallel domains and the backbone are 2.0 times the backbone (table 1)."""
    full = Shared(network(width=1.0).abstract(1)["params"])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), full.params)
    family = Family(dataclasses.replace(full, params=zeros))
    assert family.shared.backbone_parameters() == 5_806_944 + 7_744
    variables = initial_variables(network("parallel", width=1.0), 10, seed=0)
    own = {key: variables[key] for key in ("adapters", "batch_stats")}
    family.add("digits", Member(digits.domain, network("parallel", width=1.0), own))
    assert family.parameters("digits") == 645_216 + 7_744 + 2_570
    assert 1 + 9 * family.ratio("digits") == pytest.approx(2.0, abs=0.02)
    family.add(
        "own",
        Member(
            digits.domain, network(width=1.0), initial_variables(network(width=1.0), 10, seed=0)
        ),
    )
    assert family.parameters("own") == 5_817_258
    assert family.ratio("own") == 1.0


def test_numbers_of_numpy_are_kept_as_numbers(digits, tmp_path):
    """A loop over an array gives them; what is trained with them can be saved."""
    made = LowRank(ranks=np.int64(2), init="he_normal")
    network = ModelSpec(ResNet26(0.125), made)
    variables = initial_variables(network, 10, 0)
    shared = Shared(variables.pop("params"), ResNet26(0.125))
    domain = dataclasses.replace(digits.domain, mean=tuple(np.float32([0.5, 0.25, 0.5])))
    family = Family(shared, [Member(domain, network, variables)])
    family.save(tmp_path / "run")
    family.save_domain("digits", tmp_path / "digits.safetensors")
    for found in (
        Family.load(tmp_path / "run")["digits"],
        family.read_domain(tmp_path / "digits.safetensors"),
    ):
        assert (found.spec.adapter.ranks, found.domain.mean) == (2, (0.5, 0.25, 0.5))
