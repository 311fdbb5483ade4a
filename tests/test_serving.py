"""Swapping, mixed batches, folding and export."""

import errno
import hashlib
import json
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from families import KINDS, empty_family, member_of, of_classes, whole
from jax import export

from radapt_jax import ResNet26, fold
from radapt_jax.compress.family import compress_family
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.family import predict
from radapt_jax.family.predict import predict_mixed, probabilities, statistics
from radapt_jax.models import ResNet20
from radapt_jax.utils import files, trees


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(12))


@pytest.fixture(scope="module")
def family(digits, faces):
    """Domains of every kind, with 2 to 20 classes; `a` to `c` are of one kind."""
    family = empty_family()
    family.add("a", member_of(digits, "parallel", 1))
    family.add("b", member_of(of_classes(digits, 20), "parallel", 2))
    family.add("c", member_of(faces, "parallel", 3))
    for seed, kind in enumerate(("none", "series", "low_rank"), 4):
        family.add(kind, member_of(digits, kind, seed))
    family.add("own", member_of(digits, "none", 7, own_weights=True))
    return family


@pytest.fixture(scope="module")
def joint(digits, faces):
    family = empty_family()
    family.add("a", member_of(digits, "parallel", 1))
    family.add("c", member_of(faces, "parallel", 3))
    return compress_family(family, "joint", rank_rule("uniform"))


@pytest.mark.parametrize("as_floats", [False, True])
def test_a_mixed_batch_is_its_domains_apart(family, pixels, as_floats):
    names = ["a", "b", "c", "series", "own", "low_rank", "c", "a", "none", "b", "a", "series"]
    images = pixels.astype(np.float32) / 128 - 1 if as_floats else pixels
    found = family.predict(images, domains=names)
    assert found.shape == (12, 20)
    for row, (name, image) in enumerate(zip(names, images, strict=True)):
        alone = family.predict(image[None], domain=name)[0]
        np.testing.assert_allclose(found[row, : len(alone)], alone, atol=1e-5)
        assert not found[row, len(alone) :].any()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_a_mixed_batch_of_a_compressed_family(joint, pixels):
    found = joint.predict(pixels[:4], domains=["a", "c", "c", "a"])
    for row, name in enumerate(("a", "c", "c", "a")):
        alone = joint.predict(pixels[row : row + 1], domain=name)[0]
        np.testing.assert_allclose(found[row, : len(alone)], alone, atol=1e-5)


def test_mixing_traces_once(family, pixels):
    """Which domains a batch has is data: one trace for all mixtures of a kind."""
    chex.clear_trace_counter()
    traced = chex.assert_max_traces(predict_mixed.__wrapped__, n=1)
    model, params, bank, means, stds = family._predictor._stacked(("a", "b", "c"))
    counted = jax.jit(traced, static_argnames="model")
    for which in ([0, 1, 2, 0], [2, 2, 2, 2], [1, 0, 0, 1]):
        counted(model, params, bank, np.array(which), pixels[:4], means, stds)


def test_domains_of_all_class_counts_share_one_program(digits, faces, pixels):
    family = empty_family()
    for seed, count in enumerate((2, 10, 100, 1623)):
        family.add(f"d{count}", member_of(of_classes(digits, count), "parallel", seed))
    family.predict(pixels[:7], domain="d2")
    before = predict.predict._cache_size()
    for name in ("d10", "d100", "d1623", "d2"):
        assert family.predict(pixels[:7], domain=name).shape == (7, int(name[1:]))
    assert predict.predict._cache_size() == before


def test_swapping_traces_once(family, pixels):
    """Domains of 10 and 2 classes share one trace."""
    chex.clear_trace_counter()
    counted = jax.jit(chex.assert_max_traces(probabilities, n=1), static_argnames="model")
    for name in ("a", "c", "a"):
        model, variables = family._predictor._padded(name)
        counted(model, variables, pixels[:3], *statistics(family[name].domain))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either"),
        ({"domain": "a", "domains": ["a"] * 12}, "either"),
        ({"domains": ["a"]}, "1 domains for 12 images"),
    ],
)
def test_domains_must_match_images(arguments, message, family, pixels):
    with pytest.raises(ValueError, match=message):
        family.predict(pixels, **arguments)
    with pytest.raises(KeyError, match="nobody"):
        family.predict(pixels[:1], domains=["nobody"])
    assert family.predict(pixels[:0], domains=[]).shape == (0, 0)


@pytest.mark.parametrize("fold_norm", [False, True])
@pytest.mark.parametrize(
    ("made", "width"), [(ResNet26, 0.125), (ResNet26, 0.25), (ResNet20, 0.125)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_folding_changes_nothing(kind, made, width, fold_norm, digits, pixels):
    """Logits within 1e-5, stem and stride-2 convolutions included."""
    member = member_of(digits, kind, 5, width=width, made=made)
    family = empty_family(width, made)
    family.add("it", member)
    normalised = pixels.astype(np.float32) / 128 - 1
    variables = family.variables("it")
    logits = family.model("it").apply(variables, normalised, train=False)
    folded = family.fold("it", fold_norm=fold_norm)
    weights = folded.weights
    found = weights.spec.build(10).apply(weights.variables, normalised, train=False)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    np.testing.assert_allclose(
        folded.predict(pixels), family.predict(pixels, domain="it"), atol=1e-5
    )
    assert weights.spec.adapter.kind == "none"
    plain = weights.spec.abstract(10)
    trees.check_like(weights.variables, plain, "the folded network")
    if kind != "none":
        kernel = weights.variables["params"]["stem"]["kernel"]
        assert not np.array_equal(kernel, variables["params"]["stem"]["kernel"])
    if fold_norm:
        with pytest.raises(ValueError, match="folded, for evaluation"):
            weights.spec.build(10).apply(
                weights.variables, normalised, train=True, mutable=["batch_stats"]
            )


def test_folding_a_jointly_compressed_domain(joint, pixels):
    found = joint.fold("c").predict(pixels)
    np.testing.assert_allclose(found, joint.predict(pixels, domain="c"), atol=1e-5)
    plain = fold(joint["c"].spec, joint.variables("c"))
    assert not any(path.endswith("beta") for path in trees.flatten(plain["params"]))


def test_a_thousand_folds_leave_the_shared_weights_alone(family):
    before = family.fingerprint
    names = ("a", "b", "series", "low_rank")
    for swap in range(1000):
        kernel = {"stem": {"kernel": family.variables("a")["params"]["stem"]["kernel"]}}
        name = names[swap % 4]
        own = {
            part: {key: family[name].variables[part][key] for key in ("stem", "stem_norm")
                   if key in family[name].variables[part]}
            for part in ("adapters", "batch_stats")
        }  # fmt: skip
        fold(family[name].spec, {"params": kernel, **own})
    folded = family.fold("a")
    assert trees.fingerprint(folded.unfold()) == before
    assert trees.fingerprint(family.variables("b")["params"]) == before


def test_an_exported_domain_runs_with_jax_alone(family, pixels, tmp_path):
    path = tmp_path / "c.stablehlo"
    family.export("c", path)
    np.save(tmp_path / "images.npy", pixels)
    code = f"""
import sys
import numpy as np
from jax import export
exported = export.deserialize(open({str(path)!r}, "rb").read())
assert set(exported.platforms) == {{"cpu", "cuda"}}, exported.platforms
images = np.load({str(tmp_path / "images.npy")!r})
found = [np.asarray(exported.call(images[:amount])) for amount in (1, 5, 12)]
assert not {{"flax", "radapt_jax", "orbax"}} & set(sys.modules)
np.save({str(tmp_path / "found.npy")!r}, np.concatenate(found))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    expected = family.predict(pixels, domain="c")
    expected = np.concatenate([expected[:amount] for amount in (1, 5, 12)])
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)
    facts = json.loads((tmp_path / "c.stablehlo.json").read_text())
    assert facts["classes"] == ["no face", "face"]
    program = path.read_bytes()
    assert facts["sha256"] == hashlib.sha256(program).hexdigest()
    assert facts["platforms"] == ["cpu", "cuda"]


def test_one_platform_is_a_word_and_its_file_runs(family, pixels, tmp_path):
    path = tmp_path / "c.stablehlo"
    family.export("c", path, platforms="cpu")
    exported = export.deserialize(path.read_bytes())
    assert exported.platforms == ("cpu",)
    expected = family.predict(pixels[:2], domain="c")
    np.testing.assert_allclose(exported.call(pixels[:2]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("platforms", "message"),
    [
        ("gpu", r"found platforms \['gpu'\]; expected .*'cpu', 'cuda', 'rocm', 'tpu'.*'cuda' or"),
        ("cpu,cuda", r"found platforms \['cpu,cuda'\]"),
        (["cpu", "CPU", "metal"], r"found platforms \['CPU', 'metal'\]"),
        ([], r"found platforms \[\]"),
    ],
)
def test_platforms_that_jax_does_not_know_are_refused(platforms, message, family, tmp_path):
    with pytest.raises(ValueError, match=message):
        family.export("c", tmp_path / "c.stablehlo", platforms=platforms)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("at", [1, 2])
def test_an_export_that_fails_leaves_the_files_that_were_there(
    step, at, family, tmp_path, monkeypatch
):
    """A full disk at the first or the second of the two files."""
    path, facts = tmp_path / "c.stablehlo", tmp_path / "c.stablehlo.json"
    path.write_bytes(b"old program")
    facts.write_bytes(b"old facts")
    calls, plain = [], getattr(files.os, step)

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, step, fail)
        with pytest.raises(OSError, match=r"could not be saved(.|\n)*No space left"):
            family.export("c", path, platforms="cpu")
    assert sorted(tmp_path.iterdir()) == [path, facts]
    assert path.read_bytes() == b"old program"
    if (step, at) == ("replace", 2):  # between the two moves: the facts tell that it is not theirs
        old = hashlib.sha256(b"old program").hexdigest()
        assert json.loads(facts.read_text())["sha256"] != old
    else:
        assert facts.read_bytes() == b"old facts"


def test_features_are_what_the_head_takes(family, pixels):
    """Of every kind, with padded heads; a batch is cut into parts."""
    for name in ("a", "series", "low_rank", "own"):
        features = family.features(pixels[:5], domain=name, batch_size=2)
        assert features.dtype == np.float32
        head = family[name].variables["adapters"]["head"]
        expected = family.predict(pixels[:5], domain=name)
        found = jax.nn.softmax(features @ head["kernel"] + head["bias"])
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert family.features(pixels[:0], domain="a").shape == (0, features.shape[1])
    with pytest.raises(KeyError, match="nowhere"):
        family.features(pixels, domain="nowhere")
    with pytest.raises(ValueError, match=r"found images of shape \(32, 32, 3\)"):
        family.features(np.zeros((32, 32, 3), np.uint8), domain="a")
