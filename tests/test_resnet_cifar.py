"""CIFAR ResNets: counts, the network of the paper, and weights from PyTorch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED
from families import member_of, whole
from safetensors.numpy import load_file

import radapt_jax as rj
from radapt_jax import __main__
from radapt_jax.convert import state_dict_of
from radapt_jax.models import ResNet20, make_backbone
from radapt_jax.models.resnet_cifar import DEPTHS
from radapt_jax.utils import trees

WEIGHTS = SHARED / "weights"
# With norms and a head of ten classes; zero-padded shortcuts have none.
PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(6))


def normalised(images, domain):
    return ((images / 255 - np.array(domain.mean)) / np.array(domain.std)).astype(np.float32)


def apply(family, name, images):
    return family.model(name).apply(family.variables(name), images, train=False)


def state_of(variables, blocks=3):
    """The names and layouts of PyTorch for a network's variables."""
    leaves = {**trees.flatten(variables["adapters"]), **trees.flatten(variables["batch_stats"])}
    filters = trees.flatten(variables["params"])
    layers = [("stem", "stem_norm", "conv1", "bn1")]
    for stage in (1, 2, 3):
        for block in range(blocks):
            ours, theirs = f"stage{stage}/block{block + 1}", f"layer{stage}.{block}"
            layers += [
                (f"{ours}/conv{conv}", f"{ours}/norm{conv}", f"{theirs}.conv{conv}",
                 f"{theirs}.bn{conv}")
                for conv in (1, 2)
            ]  # fmt: skip
    state = {"linear.weight": leaves["head/kernel"].T, "linear.bias": leaves["head/bias"]}
    for conv, norm, their_conv, their_norm in layers:
        state[f"{their_conv}.weight"] = filters[f"{conv}/kernel"].transpose(3, 2, 0, 1)
        state |= {f"{their_norm}.{name}": leaves[f"{norm}/{leaf}"] for name, leaf in NORM.items()}
        state[f"{their_norm}.num_batches_tracked"] = np.array(7)
    return state


@pytest.fixture(scope="module")
def source(digits):
    """A network of width 1/4 with statistics and norms at random, and its state_dict."""
    variables = dict(member_of(digits, "none", 1, width=0.25, made=ResNet20).variables)
    spec = rj.ModelSpec(ResNet20(0.25))
    variables["params"] = rj.initial_variables(spec, 10, seed=2)["params"]
    return spec, variables, state_of(variables)


@pytest.fixture(scope="module")
def trained(source, digits):
    """The imported family with a domain that was trained for two steps on real digits."""
    family = rj.family_of_resnet_cifar(source[2])
    before = family.fingerprint
    split = digits.splits["train"]
    history = rj.fit(
        family,
        "digits",
        whole(split, range(80)),
        split.targets[:80],
        adapter=rj.Parallel(),
        domain=rj.DomainOptions(size=16, resize=16, flip=False),
        options=rj.TrainOptions(steps=2, evals=1, batch_size=16),
        progress=False,
    )
    assert [row.step for row in history.rows if row.split == "val"] == [2]
    assert family.fingerprint == before
    return family


def in_pytorchs_layout(state, x):
    """The network in NumPy, by PyTorch's names, of images (b, c, h, w): no code of ours."""

    def conv(x, name, stride=1):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        windows = windows[:, :, ::stride, ::stride]
        return np.einsum("bchwij,dcij->bdhw", windows, state[f"{name}.weight"], optimize=True)

    def norm(x, name):
        scale, bias, mean, var = (state[f"{name}.{leaf}"][:, None, None] for leaf in NORM)
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def block(x, name, stride):
        y = np.maximum(norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1"), 0)
        y = norm(conv(y, f"{name}.conv2"), f"{name}.bn2")
        if stride == 2:
            half = (y.shape[1] - x.shape[1]) // 2
            x = np.pad(x[:, :, ::2, ::2], ((0, 0), (half, half), (0, 0), (0, 0)))
        return np.maximum(x + y, 0)

    x = np.maximum(norm(conv(x, "conv1"), "bn1"), 0)
    for stage in (1, 2, 3):
        for index in range(3):
            x = block(x, f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    backbone = make_backbone(name)
    variables = rj.ModelSpec(backbone).abstract(10)
    found = trees.count(variables["params"]) + trees.count(variables["adapters"])
    assert found == PARAMETERS[name]
    layers = len(backbone.convolutions()) + 1
    assert name == f"resnet{layers}"
    assert make_backbone(**backbone.to_json()) == backbone


def test_depths_are_not_equal_and_widths_are_the_stems():
    assert len({made() for made in DEPTHS}) == len(DEPTHS)
    assert ResNet20(0.5).channels(64) == 32
    with pytest.raises(ValueError, match=r"gives the stem 4.8 channels; .* multiple of 1/16"):
        ResNet20(0.3)
    with pytest.raises(ValueError, match="multiples of 4"):
        rj.ModelSpec(ResNet20(0.25)).backbone.check_sides((1, 16, 18, 3))


def test_every_3x3_convolution_can_carry_an_adapter():
    def adapted(**placed):
        spec = rj.ModelSpec(ResNet20(), rj.Parallel(), rj.Placement(**placed))
        paths = trees.flatten(spec.abstract(10)["adapters"])
        return {path.removesuffix("/adapter/kernel") for path in paths if "/adapter/" in path}

    everything = {conv for conv, *_ in ResNet20().convolutions()}
    assert adapted() == everything
    stages = [adapted(stages=(stage,)) for stage in ResNet20.stages]
    assert [len(found) for found in stages] == [7, 6, 6]
    assert "stem" in stages[0]
    assert set().union(*stages) == everything
    seconds = {conv for conv in everything if conv.endswith("conv2")}
    assert adapted(convs=("second",)) == {"stem"} | seconds


def test_shapes_by_stage(source, pixels):
    spec, variables, _ = source
    _, state = spec.build(10).apply(
        variables, pixels / 255 - 0.5, train=False, capture_intermediates=True
    )
    found = trees.flatten(state["intermediates"])
    shapes = [found[f"stage{stage}/__call__"][0].shape for stage in (1, 2, 3)]
    assert shapes == [(6, 16, 16, 4), (6, 8, 8, 8), (6, 4, 4, 16)]
    half = spec.build(10, dtype=jnp.bfloat16).apply(variables, pixels / 255 - 0.5, train=False)
    assert half.dtype == jnp.float32


def test_it_is_the_network_that_pytorch_computes(source, pixels):
    spec, variables, state = source
    images = pixels / 255 - 0.5
    expected = in_pytorchs_layout(state, images.transpose(0, 3, 1, 2))
    found = spec.build(10).apply(variables, images, train=False)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_import_is_the_network_itself(prefix, source, pixels):
    spec, variables, state = source
    shuffled = {f"{prefix}{name}": state[name] for name in sorted(state, reverse=True)}
    found = rj.family_of_resnet_cifar(shuffled)
    member = found["cifar10"]
    assert (found.shared.source, member.spec) == ("cifar10", spec)
    assert member.domain.classes[3] == "cat"
    assert (member.domain.size, member.domain.mean) == (32, (0.485, 0.456, 0.406))
    chex.assert_trees_all_equal(found.variables("cifar10"), variables)
    images = normalised(pixels, member.domain)
    expected = jax.nn.softmax(spec.build(10).apply(variables, images, train=False))
    np.testing.assert_allclose(found.predict(pixels, domain="cifar10"), expected, atol=1e-5)


@pytest.mark.parametrize("made", DEPTHS)
def test_names_tell_the_depth(made):
    spec = rj.ModelSpec(made(1 / 16))
    state = state_of(rj.initial_variables(spec, 4, seed=0), made.blocks)
    found = rj.family_of_resnet_cifar(state, name="four", classes=None)
    assert (found.shared.backbone, found["four"].domain.classes) == (spec.backbone, tuple("0123"))


def replaced(state, **changes):
    """A state with tensors changed, or left out where the change is None."""
    changed = {**state, **{name.replace("__", "."): it for name, it in changes.items()}}
    return {name: it for name, it in changed.items() if it is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1__weight": None}, r"resnet20 of which 'conv1.weight' is missing; expected the 97"),
        ({"layer3__2__bn2__running_var": None}, r"'layer3.2.bn2.running_var' is missing"),
        ({"bn1__weight": None, "bn1__bias": None}, r"'bn1.bias' .* \(and 1 more: \['bn1.weight'"),
        ({"layer2__0__shortcut__0__weight": 1}, "'layer2.0.shortcut.0.weight' is not one of"),
        ({"layer1__3__conv1__weight": 1}, "found 4 blocks in layer1; expected .3, 5, 7, 9, 18"),
        ({"layer2__3__conv1__weight": 1}, "'layer2.3.conv1.weight' is not one of its tensors"),
        ({"module__bn1__bias": 1}, "found 'bn1.bias' twice"),
        ({"linear__weight": np.zeros(10)}, r"found linear.weight of shape \(10,\)"),
        ({"linear__weight": np.zeros((10, 8))}, r"head/kernel: found \(8, 10\).*\(16, 10\)"),
        ({"conv1__weight": np.zeros((5, 3, 3, 3))}, "does not fit this network"),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes, message, source):
    with pytest.raises(ValueError, match=message):
        rj.family_of_resnet_cifar(replaced(source[2], **changes))


def test_what_is_no_state_of_a_cifar_resnet_is_named(source):
    with pytest.raises(ValueError, match=r"found 0 blocks in layer1.*begins with \['state_dict'\]"):
        rj.family_of_resnet_cifar({"state_dict": source[2]})
    with pytest.raises(ValueError, match="found 2 class names for a head of 10 classes"):
        rj.family_of_resnet_cifar(source[2], classes=("a", "b"))


def test_a_domain_is_trained_saved_loaded_and_served(trained, pixels, tmp_path):
    alphas = rj.svd(trained["digits"], 1)
    assert set(alphas) == {conv for conv, *_ in trained.shared.backbone.convolutions()}
    assert all(np.abs(beta).max() > 0 for beta, _ in alphas.values()), "they were trained"
    trained.save(tmp_path)
    again = rj.Family.load(tmp_path)
    assert again.shared.backbone == ResNet20(0.25)
    names = ["cifar10", "digits"] * 3
    mixed = again.predict(pixels, domains=names)
    for name in set(names):
        alone = trained.predict(pixels, domain=name)
        np.testing.assert_array_equal(again.predict(pixels, domain=name), alone)
        rows = [row for row, it in enumerate(names) if it == name]
        np.testing.assert_allclose(mixed[rows], alone[rows], atol=1e-5)


def test_joint_compression(trained, pixels):
    joint = rj.compress_family(trained, "joint", rj.rank_rule("uniform", share=1.0))
    assert joint.shared.basis.kind == "joint"
    images = normalised(pixels, trained["digits"].domain)
    expected = apply(trained, "digits", images)
    np.testing.assert_allclose(apply(joint, "digits", images), expected, atol=1e-4)
    predicted = joint.predict(pixels, domain="digits")
    for fold_norm in (False, True):
        folded = joint.fold("digits", fold_norm=fold_norm)
        np.testing.assert_allclose(folded.predict(pixels), predicted, atol=1e-5)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the trained weights are not here")
def test_trained_weights_give_the_reference_values():
    state = load_file(WEIGHTS / "cifar10_resnet20.safetensors")
    family = rj.family_of_resnet_cifar(state)
    assert family.shared.backbone == ResNet20()
    with np.load(WEIGHTS / "cifar10_resnet20_reference.npz") as file:
        reference = dict(file)
    images = normalised(reference["images"], family["cifar10"].domain)
    np.testing.assert_allclose(apply(family, "cifar10", images), reference["logits"], atol=1e-4)
    features = family.features(reference["images"], domain="cifar10")
    np.testing.assert_allclose(features, reference["features"], atol=1e-4)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the trained weights are not here")
def test_a_trained_file_is_imported_by_command(tmp_path, capsys):
    """As its author published it: a pickle, of which nothing is executed."""
    __main__.main(
        ["import", str(WEIGHTS / "cifar10_resnet20-12fca82f.th"), "--out", str(tmp_path / "run")]
    )
    assert "CIFAR ResNet" in capsys.readouterr().out
    family = rj.Family.load(tmp_path / "run")
    with np.load(WEIGHTS / "cifar10_resnet20_reference.npz") as file:
        images = normalised(file["images"], family["cifar10"].domain)
        expected = file["logits"]
    np.testing.assert_allclose(apply(family, "cifar10", images), expected, atol=1e-4)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the trained weights are not here")
def test_depth_is_told_by_names():
    state = state_dict_of(WEIGHTS / "cifar10_resnet56-4bfd9763.th")
    family = rj.family_of_resnet_cifar(state)
    assert family.shared.backbone.name == "resnet56"


@pytest.mark.parametrize(("count", "first"), [(10, "airplane"), (100, "0")])
def test_class_names_are_known_where_the_head_has_ten(count, first):
    """A network of CIFAR-100 is imported without a word about its classes."""
    variables = rj.initial_variables(rj.ModelSpec(ResNet20(0.25)), count, 0)
    family = rj.family_of_resnet_cifar(state_of(variables))
    classes = family["cifar10"].domain.classes
    assert (len(classes), classes[0]) == (count, first)
