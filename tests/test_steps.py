"""The compiled steps: frozen weights, compilation, devices, evaluation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import network, whole

from radapt_jax import initial_variables
from radapt_jax.data import batches
from radapt_jax.data.pixels import DevicePixels, HostPixels
from radapt_jax.evaluation.evaluate import predict_split, scores_of
from radapt_jax.evaluation.step import make_eval_step
from radapt_jax.train import optim
from radapt_jax.train.compiled import make_train_step
from radapt_jax.train.step import TrainState
from radapt_jax.utils import trees
from radapt_jax.utils.distributed import replicate

ADAPT = {"filters": None, "adapters": 5e-4, "norms": 5e-4, "head": 5e-4}
BATCH = 32


def nothing(step):
    """Do nothing after a step."""


def train(
    data, spec, decay, devices, steps=3, start=None, after=nothing, on_device=False, **options
):
    """Train a few steps from the same start; return first and last variables, and losses."""
    start = start or initial_variables(spec, data.domain.num_classes, seed=0)
    labels = optim.labels({key: start[key] for key in ("params", "adapters")}, decay, spec.kind)
    optimizer = optim.make_optimizer(labels, decay, 0.1)
    devices = jax.devices()[:devices]
    state = TrainState.create(start, optimizer, devices)
    step = make_train_step(spec, data.domain, optimizer, labels, devices=devices, **options)
    pixels = HostPixels(data.splits["train"], data.domain.size)
    if on_device:
        pixels = DevicePixels(data.splits["train"], lambda it: replicate(it, devices), devices)
    losses = []
    for index in range(steps):
        batch = batches.train_batch(pixels, data.domain, BATCH, 0, index, len(devices))
        state, measured = step(state, batch, pixels.resident)
        losses.append(float(measured["loss"]))
        after(index)
    return start, trees.to_numpy(state.variables), losses


@pytest.mark.parametrize("kind", ["series", "parallel"])
def test_shared_weights_stay_bit_identical(kind, digits, compilations):
    """Momentum and decay are on; w does not move, everything of the domain does."""
    spec = network(kind, width=0.125)
    counts = []
    start, end, losses = train(
        digits, spec, ADAPT, devices=1, after=lambda _: counts.append(len(compilations))
    )
    assert trees.fingerprint(start["params"]) == trees.fingerprint(end["params"])
    before = trees.flatten({key: start[key] for key in ("adapters", "batch_stats")})
    after = trees.flatten({key: end[key] for key in ("adapters", "batch_stats")})
    still = [path for path in before if np.array_equal(before[path], after[path])]
    assert still == []
    assert losses[-1] < losses[0]
    assert counts[0] >= 1
    assert counts[-1] == counts[0]  # the first step compiled, no other did


@pytest.mark.parametrize(
    ("trained", "moving"),
    [(("head",), {"head"}), (("norms", "head"), {"norms", "head"})],
    ids=["linear", "norm"],
)
def test_only_trained_labels_move(trained, moving, digits):
    decay = {name: 5e-4 if name in trained else None for name in optim.LABELS}
    spec = network(width=0.125)
    start, end, _ = train(digits, spec, decay, devices=1, steps=2)
    leaves = trees.flatten({key: start[key] for key in ("params", "adapters")})
    moved = {
        optim.label(path, spec.kind, leaves)
        for path, leaf in leaves.items()
        if not np.array_equal(leaf, trees.flatten(end)[path])
    }
    assert moved == moving
    stats = trees.flatten(end["batch_stats"])
    assert not np.array_equal(stats["norm/mean"], trees.flatten(start)["batch_stats/norm/mean"])


def test_result_does_not_depend_on_the_number_of_devices(faces):
    """Synchronised norms, random crops, flips and dropout: 1, 2 and 8 devices agree.

    In float64, where another order of summation stays far below what a mistake would do.
    """
    spec = network("parallel", width=0.125, init="he_normal", dropout=(0.3, 0.3))
    with jax.enable_x64(True):
        start = jax.tree.map(np.float64, initial_variables(spec, 2, seed=0))
        runs = {
            count: train(
                faces, spec, ADAPT, count, 2, start=start, sync_norm=True, dtype=jnp.float64
            )
            for count in (1, 2, 8)
        }
    for count in (2, 8):
        np.testing.assert_allclose(runs[count][2], runs[1][2], rtol=1e-9)
        chex.assert_trees_all_close(runs[count][1], runs[1][1], rtol=0, atol=1e-9)


def test_norms_by_device_train_too(digits, compilations):
    """Without synchronisation each device normalises its own images; statistics are averaged."""
    spec = network("parallel", width=0.125)
    counts = []
    _, alone, _ = train(digits, spec, ADAPT, devices=1, steps=1)
    _, apart, losses = train(
        digits, spec, ADAPT, devices=2, steps=2, after=lambda _: counts.append(len(compilations))
    )
    _, once, _ = train(digits, spec, ADAPT, devices=2, steps=1)
    assert losses[1] < losses[0]
    assert counts[1] == counts[0]
    alone, once, apart = (trees.flatten(run["batch_stats"]) for run in (alone, once, apart))
    mean, var = "stem_norm/mean", "norm/var"
    np.testing.assert_allclose(once[mean], alone[mean], rtol=1e-4, atol=1e-6)
    assert not np.allclose(once[var], alone[var], rtol=1e-3)
    assert not np.array_equal(apart[mean], once[mean])


def test_state_does_not_delete_what_it_was_made_from(digits):
    spec = network(width=0.125)
    start = jax.tree.map(jax.numpy.asarray, initial_variables(spec, 10, seed=0))
    labels = optim.labels({key: start[key] for key in ("params", "adapters")}, ADAPT, spec.kind)
    optimizer = optim.make_optimizer(labels, ADAPT, 0.1)
    devices = jax.devices()[:1]
    state = TrainState.create(start, optimizer, devices)
    step = make_train_step(spec, digits.domain, optimizer, labels, devices=devices)
    pixels = HostPixels(digits.splits["train"], 16)
    step(state, batches.train_batch(pixels, digits.domain, BATCH, 0, 0, 1), None)
    chex.assert_trees_all_equal(start, initial_variables(spec, 10, seed=0))
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(state.adapters["head"]["bias"])  # donated


@pytest.mark.parametrize("devices", [1, 2])
def test_images_on_the_device_give_the_same_bits(devices, faces):
    """Random crops, flips and all: the same batches, and the same weights after three steps."""
    spec = network("parallel", width=0.125)
    runs = [
        train(faces, spec, ADAPT, devices=devices, on_device=on_device)
        for on_device in (False, True)
    ]
    assert runs[0][2] == runs[1][2]
    chex.assert_trees_all_equal(runs[0][1], runs[1][1])


def eval_of(data, spec, devices, crops=1, on_device=False):
    """Return variables, and what they say of all test images in batches of 64."""
    variables = initial_variables(spec, data.domain.num_classes, seed=0)
    split, devices = data.splits["test"], jax.devices()[:devices]
    step = make_eval_step(spec, data.domain, devices=devices)
    pixels = HostPixels(split, data.domain.size)
    if on_device:
        pixels = DevicePixels(split, lambda it: replicate(it, devices), devices)
    return variables, predict_split(step, variables, pixels, data.domain, 64, len(devices), crops)


@pytest.mark.parametrize("devices", [1, 8])
def test_evaluation_counts_every_image(devices, digits):
    """500 test images in batches of 64: the last one is padded, and padding counts for nothing."""
    spec = network("parallel", width=0.125)
    variables, judged = eval_of(digits, spec, devices)
    split = digits.splits["test"]
    found = scores_of(judged, split.targets)
    normalised = (whole(split) / 255 - np.array(digits.domain.mean)) / np.array(digits.domain.std)
    logits = spec.build(10).apply(variables, normalised.astype(np.float32), train=False)
    expected = 100 * float((np.argmax(logits, -1) == split.targets).mean())
    assert found.count == 500
    assert found.top1 == pytest.approx(expected, abs=0.21)  # at most one tie apart
    chances = np.asarray(jax.nn.log_softmax(logits))[np.arange(500), split.targets]
    assert found.loss == pytest.approx(-chances.mean(), abs=1e-4)
    np.testing.assert_allclose(judged.sure, jax.nn.softmax(logits).max(-1), atol=1e-4)


def test_several_crops_are_averaged(faces):
    """Ten crops: the mean of the probabilities of ten windows, half of them mirrored."""
    spec = network("parallel", width=0.125)
    variables, judged = eval_of(faces, spec, 1, crops=10)
    images = whole(faces.splits["test"])
    corners = [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    windows = [images[:, top : top + 16, left : left + 16] for top, left in corners]
    windows += [window[:, :, ::-1] for window in windows]
    model, mean, std = spec.build(2), np.array(faces.domain.mean), np.array(faces.domain.std)
    chances = [
        jax.nn.softmax(model.apply(variables, ((it / 255 - mean) / std), train=False))
        for it in windows
    ]
    average = np.mean(chances, 0)
    labels = faces.splits["test"].targets
    expected = -np.log(average[np.arange(len(labels)), labels])
    np.testing.assert_allclose(judged.losses, expected, atol=1e-4)
    _, resident = eval_of(faces, spec, 1, crops=10, on_device=True)
    np.testing.assert_array_equal(judged.losses, resident.losses)


def test_images_that_do_not_fit_on_the_device(faces, monkeypatch):
    monkeypatch.setattr("radapt_jax.data.pixels.MOST", 1000)
    with pytest.raises(ValueError, match=r"do not fit.*1,000.*on_device=False"):
        DevicePixels(faces.splits["test"], lambda it: it, jax.devices()[:1])
