"""Fine-tuning of compressed domains: through the rounding, and with the dense ones as teachers."""

import dataclasses
import json
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import empty_family, member_of, whole
from test_end_to_end import pretrained as pretrained
from test_end_to_end import small

import radapt_jax as rj
from radapt_jax.adapters.base import is_adapters
from radapt_jax.data import batches
from radapt_jax.data.pixels import HostPixels
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.experiment import curve
from radapt_jax.experiment.compressed import teacher_of
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.family.rounding import Rounding
from radapt_jax.nn.losses import cross_entropy
from radapt_jax.train import optim
from radapt_jax.train.compiled import make_train_step
from radapt_jax.train.signals import Stopped
from radapt_jax.train.step import TrainState
from radapt_jax.train.through import through_rounding
from radapt_jax.utils import trees

WIDTH = 0.125
DECAY = {"filters": None, "adapters": 5e-4, "norms": 5e-4, "head": 5e-4}


@pytest.fixture(scope="module")
def family(digits):
    made = empty_family(WIDTH)
    made.add("digits", member_of(digits, "parallel", 1, width=WIDTH))
    made.add("factors", member_of(digits, "low_rank", 2, width=WIDTH))
    return made


@pytest.fixture(scope="module")
def dense(pretrained, cache_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("dense")
    changes = {"init_from": str(pretrained), "domains": "digits,faces"}
    train_and_evaluate(small("parallel", cache_dir, **changes), workdir)
    return workdir


def weights_of(family, name):
    variables = family.variables(name)
    return trees.flatten({it: variables[it] for it in ("params", "adapters")})


@pytest.mark.parametrize("name", ["digits", "factors"])
@pytest.mark.parametrize("bits", [2, 4])
def test_weights_are_seen_as_a_file_has_them(name, bits, family):
    """The matrices of adapters; head, vectors and filters are as they are."""
    member, weights = family[name], weights_of(family, name)
    seen = through_rounding(member.spec, bits)(weights)
    kept = trees.flatten(member.rounded(Rounding(bits)).variables)
    changed = [path for path, it in weights.items() if not np.array_equal(it, seen[path])]
    assert changed
    for path, value in seen.items():
        if is_adapters(path):
            np.testing.assert_array_equal(value, kept[path])
            assert path.rsplit("/", 1)[1] in ("kernel", "beta", "gamma")
        else:
            assert path not in changed
    assert through_rounding(member.spec, 32)(weights) is weights


def test_gradients_pass_straight_through(family, digits):
    """They are those at the rounded values, for every weight."""
    spec, weights = family["digits"].spec, weights_of(family, "digits")
    images = jnp.asarray(whole(digits.splits["train"], range(8)) / 128 - 1, jnp.float32)
    model, seen = family.model("digits"), through_rounding(spec, 3)
    stats = family.variables("digits")["batch_stats"]

    def loss(weights):
        variables = {**trees.unflatten(weights), "batch_stats": stats}
        logits = model.apply(variables, images, train=False)
        return cross_entropy(logits, jnp.asarray(digits.splits["train"].targets[:8])).mean()

    through = jax.grad(lambda it: loss(seen(it)))(weights)
    there = jax.grad(loss)(seen(weights))
    elsewhere = jax.grad(loss)(weights)
    chex.assert_trees_all_close(through, there, rtol=1e-5, atol=1e-7)
    path = "adapters/stage3/block1/conv1/adapter/kernel"
    assert not np.allclose(through[path], elsewhere[path], rtol=1e-2)


def test_a_lesson_by_plain_numpy(family, digits):
    """½ CE + T² KL(dense || compressed) with both softmaxes at T; the teacher is folded."""
    temperature, size = 2.0, 16
    small_one = rj.compress_family(
        family, "joint", rj.rank_rule("uniform", share=0.25), domains=["digits"]
    )
    spec, start = small_one["digits"].spec, trees.to_numpy(small_one.variables("digits"))
    teacher = teacher_of(family, "digits")
    assert teacher.spec.adapter.kind == "none"
    labels = optim.labels({it: start[it] for it in ("params", "adapters")}, DECAY, spec.kind)
    optimizer = optim.make_optimizer(labels, DECAY, 0.1)
    devices = jax.devices()[:1]
    step = make_train_step(
        spec,
        digits.domain,
        optimizer,
        labels,
        devices=devices,
        teacher=teacher,
        temperature=temperature,
    )
    split = digits.splits["train"]
    batch = batches.train_batch(HostPixels(split, 16), digits.domain, size, 0, 0, 1)
    state = TrainState.create(start, optimizer, devices)
    _, measured = step(state, batch, None, teacher.variables)
    drawn = {key: it[0] for key, it in batch.items()}
    from radapt_jax.data import augment

    images = augment.network_input(drawn, digits.domain.mean, digits.domain.std)
    ours, _ = spec.build(10).apply(start, images, train=True, mutable=["batch_stats"])
    theirs = family.model("digits").apply(family.variables("digits"), images, train=False)

    def log_softmax(logits):
        logits = np.asarray(logits, np.float64)
        logits = logits - logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    entropy = -log_softmax(ours)[np.arange(size), drawn["label"]].mean()
    told, said = (log_softmax(np.asarray(it) / temperature) for it in (theirs, ours))
    apart = (np.exp(told) * (told - said)).sum(1).mean()
    expected = entropy / 2 + temperature**2 * apart
    assert float(measured["loss"]) == pytest.approx(expected, rel=1e-4)
    assert abs(expected - entropy) > 0.05


def settings(dense, cache_dir, **changes):
    usual = {"init_from": str(dense), "domains": "digits", "train.steps": 8, "train.evals": 2}
    usual |= {"compress.statistics": 64, "compress.moments": 64}
    return small("compress", cache_dir, **{**usual, **changes})


def test_int4_is_what_was_validated(dense, cache_dir, tmp_path):
    """The member is rounded, and its validation top-1 is that of a family read from disk."""
    config = settings(dense, cache_dir, **{"compress.kind": "parallel", "compress.bits": 4})
    rows = train_and_evaluate(config, tmp_path)
    assert [row.method for row in rows] == ["scratch", "parallel_int4", "parallel"]
    family = rj.Family.load(tmp_path)
    member = family["digits"]
    assert member.rounding == Rounding(4)
    assert member.spec.adapter.kind == "parallel"
    leaves = trees.flatten(member.variables)
    kernel = leaves["adapters/stage1/block2/conv2/adapter/kernel"]
    assert max(len(np.unique(column)) for column in kernel.T) <= 15
    [row] = evaluate_family(family, domains=["digits"], split="val", cache_dir=cache_dir)
    assert row.top1 == pytest.approx(member.results["val"])
    family.save_domain("digits", tmp_path / "small.safetensors")
    rj.Family.load(dense).save_domain("digits", tmp_path / "large.safetensors")
    sizes = [(tmp_path / f"{it}.safetensors").stat().st_size for it in ("small", "large")]
    assert sizes[0] < 0.5 * sizes[1]  # at this width, names and norms are most of it
    shared = rj.Family.load(dense)
    assert shared.load_domain(tmp_path / "small.safetensors", "again") == "again"
    again = train_and_evaluate(config, tmp_path)
    assert again == rows


def test_a_taught_run_goes_on_as_if_never_stopped(dense, cache_dir, tmp_path, monkeypatch):
    """Joint, by moments, int4, with a teacher: stopped in the middle, it ends in the same bits."""
    more = {"compress.fit": "alternating", "compress.bits": 4, "compress.distill": True}
    config = settings(dense, cache_dir, **more)
    train_and_evaluate(config, tmp_path / "whole")
    plain = batches.train_batch

    def cut(pixels, domain, batch_size, seed, step, *sharing, **named):
        if step == 5 and batch_size == config.train.batch_size:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(pixels, domain, batch_size, seed, step, *sharing, **named)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "train_batch", cut)
        with pytest.raises(Stopped):
            train_and_evaluate(config, tmp_path / "stopped")
    train_and_evaluate(config, tmp_path / "stopped")
    families = [rj.Family.load(tmp_path / it) for it in ("whole", "stopped")]
    chex.assert_trees_all_equal(*(it.variables("digits") for it in families))
    assert families[0]["digits"].method == "joint_int4"
    changed = settings(dense, cache_dir, **{**more, "compress.temperature": 3.0})
    with pytest.raises(ValueError, match=r"compress\.temperature: was 2\.0, is 3\.0"):
        train_and_evaluate(changed, tmp_path / "stopped")


def test_the_smallest_that_loses_little_is_taken(dense, cache_dir, tmp_path):
    """By validation images; the choice stays when the run is started again."""
    ways = "parallel int8, joint 0.5 int4,  joint 0.1"
    more = {"compress.among": ways, "compress.at_most": 100.0, "train.steps": 1}
    config = settings(dense, cache_dir, **more, **{"train.evals": 1})
    rows = train_and_evaluate(config, tmp_path / "any")
    facts = json.loads((tmp_path / "any" / "curve.json").read_text())
    sizes = {point["name"]: point["size"] for point in facts["points"]}
    assert list(sizes) == ["dense", "parallel int8", "joint 0.5 int4", "joint 0.1"]
    assert facts["chosen"] == min(sizes, key=sizes.get)
    assert (tmp_path / "any" / "curve.png").stat().st_size > 5_000
    assert rows[1].method.startswith(facts["chosen"].split()[0])
    assert rows[1].method != "parallel"  # which is what tables call the published method
    again = train_and_evaluate(config, tmp_path / "any")
    assert again == rows


def test_the_smallest_is_measured_against_dense_adapters():
    points = [curve.Point("dense", 90.0, 100), curve.Point("a", 89.6, 50)]
    points += [curve.Point("b", 89.0, 20), curve.Point("c", 91.0, 60)]
    assert curve.smallest(points, 0.5) == "a"
    assert curve.smallest(points, 1.0) == "b"
    assert curve.smallest(points, 0.0) == "c"
    with pytest.raises(ValueError, match=r"at most 0 points: the best, 'b', loses 1\.00"):
        curve.smallest([points[0], points[2]], 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compress.bits": 5}, "found config.compress.bits 5; expected one of"),
        ({"compress.fit": "best"}, "found config.compress.fit 'best'; expected"),
        (
            {"compress.distill": True, "train.together": 2},
            "config.train.together 2 with config.compress.distill",
        ),
        ({"compress.temperature": 0.0}, "compress.temperature 0.0; expected"),
        ({"compress.temperature": 3.0}, "does nothing without config.compress.distill"),
        ({"adapter.options.init": "he_normal"}, "adapter.options.* in a run that compresses"),
        ({"compress.among": "parallel 0.5 int4"}, r"not of \[.*'parallel'.*\], which keep it"),
        ({"compress.kind": "modulation"}, "found .*parallel.* to compress to modulation"),
        ({"compress.among": "joint half"}, "found config.compress.among with 'joint half'"),
        ({"compress.among": "int4"}, "found config.compress.among with 'int4'"),
        ({"compress.moments": 0}, "found config.compress.moments 0; expected"),
    ],
)
def test_what_cannot_be_tuned_is_refused(changes, message, dense, cache_dir, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(settings(dense, cache_dir, **changes), tmp_path)


def test_domains_with_filters_of_their_own_are_refused(dense, cache_dir, tmp_path):
    """Compressed, they would stand on the shared ones."""
    family = rj.Family.load(dense)
    member = family["digits"]
    variables = {**member.variables, "params": family.shared.params}
    family.add("own", dataclasses.replace(member, variables=variables))
    family.save(tmp_path / "run")
    for kind in ("parallel", "low_rank"):
        changes = {"compress.kind": kind, "domains": "own"}
        with pytest.raises(ValueError, match=r"found \['own'\] with filters of their own"):
            train_and_evaluate(settings(tmp_path / "run", cache_dir, **changes), tmp_path / kind)


def test_bits_in_python(pretrained, digits):
    """`fit` trains through the rounding as well."""
    family = rj.Family.load(pretrained)
    split = digits.splits["train"]
    images, labels = whole(split, range(64)), split.targets[:64]
    options = rj.TrainOptions(steps=2, batch_size=16, evals=1, bits=2)
    rj.fit(family, "mine", images, labels, adapter=rj.Parallel(), options=options, progress=False)
    assert family["mine"].rounding == Rounding(2)
    with pytest.raises(ValueError, match="found bits 1; expected one of"):
        rj.TrainOptions(bits=1)
