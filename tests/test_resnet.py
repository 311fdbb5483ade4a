"""ResNets of torchvision and timm: counts, the network itself, weights from PyTorch, adapters."""

import json
import re
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, SHARED
from families import whole
from flax import linen as nn
from jax import export
from PIL import Image
from safetensors.numpy import save_file
from torch_files import zipped
from torch_resnets import logits, state_of

import radapt_jax as rj
from radapt_jax import __main__
from radapt_jax.adapters import make_options
from radapt_jax.adapters.base import is_adapters
from radapt_jax.models import ResNet18, ResNet50, make_backbone
from radapt_jax.models.resnet import RESNETS, BasicResNet, BottleneckResNet
from radapt_jax.nn.pool import max_pool
from radapt_jax.utils import trees

PARITY = SHARED / "parity" / "resnet"
# As torchvision counts them, with a head of 1,000 classes.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


class Basic(BasicResNet):
    name = "basic"
    blocks = (1, 2, 1, 1)


class Bottleneck(BottleneckResNet):
    name = "bottleneck"
    blocks = (2, 1, 1, 1)


OWN = {made.name: made for made in (Basic, Bottleneck)}


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(4))


def apply(family, name, images, **runtime):
    return family.model(name, **runtime).apply(family.variables(name), images, train=False)


def adapted(made, **placed):
    """The paths of convolutions that carry adapters."""
    spec = rj.ModelSpec(made(1 / 16), rj.Parallel(), rj.Placement(**placed))
    paths = trees.flatten(spec.abstract(2)["adapters"])
    return {path.removesuffix("/adapter/kernel") for path in paths if "/adapter/" in path}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    backbone = make_backbone(name)
    variables = rj.ModelSpec(backbone).abstract(1000)
    found = trees.count(variables["params"]) + trees.count(variables["adapters"])
    assert found == PARAMETERS[name]
    layers = [conv for conv, *_ in backbone.convolutions() if not conv.endswith("shortcut")]
    assert name == f"resnet{len(layers) + 1}"
    assert trees.flatten(variables["params"]).keys() == {
        f"{conv}/kernel" for conv, *_ in backbone.convolutions()
    }
    assert make_backbone(**backbone.to_json()) == backbone


def test_the_table_of_adapters_on_all_convolutions():
    """The second table of docs/networks.md."""
    text = (ROOT / "docs" / "networks.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    others = ["efficientnet_lite0", "efficientnet_lite4"]
    assert [name for name, *_ in rows] == [*PARAMETERS, *others]
    for name, *found in rows:
        backbone = make_backbone(name)
        for number, adapter in zip(
            found, (rj.Parallel(), rj.LowRank(ranks=1 / 2), rj.LowRank(ranks=1 / 8)), strict=True
        ):
            spec = rj.ModelSpec(backbone, adapter, rj.Placement(convs=backbone.convs))
            adapters, _ = trees.split(spec.abstract(1)["adapters"], is_adapters)
            assert trees.count(trees.unflatten(adapters)) == int(number.replace(",", "")), name


def test_options():
    small = ResNet18(0.125, small_input=True)
    assert make_backbone(**small.to_json()) == small
    assert small != ResNet18(0.125)
    kernel = rj.ModelSpec(small).abstract(2)["params"]["stem"]["kernel"]
    assert kernel.shape == (3, 3, 3, 8)
    with pytest.raises(ValueError, match="multiple of 1/64"):
        ResNet50(0.3)
    with pytest.raises(ValueError, match="found small_input 1; expected True or False"):
        ResNet50(small_input=1)
    with pytest.raises(ValueError, match=r"found stages \['early'\]; expected some of \['stem'"):
        rj.ModelSpec(ResNet18(), rj.Parallel(), rj.Placement(stages=("early",)))


@pytest.mark.parametrize("made", [ResNet18, ResNet50])
def test_every_convolution_can_carry_an_adapter(made):
    everything = {conv for conv, *_ in made().convolutions()}
    assert adapted(made, convs=made.convs) == everything
    shortcuts = {conv for conv in everything if conv.endswith("shortcut")}
    assert len(shortcuts) == (3 if made is ResNet18 else 4)
    stages = made.stages[1:]
    assert adapted(made, stages=stages, convs=("shortcut",)) == shortcuts
    filters = trees.flatten(rj.ModelSpec(made()).abstract(1)["params"])
    usual = {path for path, leaf in filters.items() if leaf.shape[0] > 1}
    assert adapted(made) == {path.removesuffix("/kernel") for path in usual}, "all but 1x1"
    assert adapted(made, stages=("stem",)) == {"stem"}
    by_stage = [adapted(made, stages=(stage,), convs=made.convs) for stage in made.stages]
    assert set().union(*by_stage) == everything
    assert sum(map(len, by_stage)) == len(everything)


@pytest.mark.parametrize("sides", [(33, 47), (30, 32)])
@pytest.mark.parametrize("small", [False, True], ids=["usual stem", "small stem"])
@pytest.mark.parametrize("made", [ResNet18, ResNet50], ids=lambda made: made.name)
def test_it_is_the_network_that_pytorch_computes(made, small, sides):
    state = state_of(made.blocks, issubclass(made, BottleneckResNet), stem=4, small=small)
    family = rj.family_of_resnet(state)
    assert family.shared.backbone == made(1 / 16, small_input=small)
    images = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
    expected = logits(state, images.transpose(0, 3, 1, 2).astype(np.float64))
    found = jax.jit(lambda x: apply(family, "imagenet", x))(images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_max_pooling_and_its_gradient(pixels):
    with jax.enable_x64(True):
        for sides in ((7, 10), (8, 8), (1, 2)):
            x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *sides, 3)) - 2)

            def ours(x):
                return max_pool(x, train=True)

            def xlas(x):
                return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

            np.testing.assert_array_equal(ours(x), xlas(x))
            np.testing.assert_array_equal(max_pool(x, train=False), xlas(x))
            gradients = [jax.grad(lambda x, f=f: jnp.sin(f(x)).sum())(x) for f in (ours, xlas)]
            np.testing.assert_allclose(*gradients, atol=1e-12)


@pytest.mark.parametrize("kind", ["parallel", "series", "low_rank"])
def test_all_convolutions_are_folded(kind, digits):
    """1x1 and 7x7 convolutions and shortcuts included, on a side that is odd."""
    spec = rj.ModelSpec(
        Bottleneck(1 / 16),
        make_options(kind, init="he_normal"),
        rj.Placement(convs=Bottleneck.convs),
    )
    variables = rj.initial_variables(spec, 10, seed=1)
    shared = rj.Shared(variables.pop("params"), spec.backbone)
    stream = np.random.default_rng(0)
    own = {name: trees.flatten(tree) for name, tree in variables.items()}
    for leaves in own.values():
        for path, leaf in leaves.items():
            if not path.endswith("kernel"):
                leaves[path] = (leaf + stream.uniform(0, 0.3, leaf.shape)).astype(np.float32)
    own = {name: trees.unflatten(leaves) for name, leaves in own.items()}
    family = rj.Family(shared, [rj.Member(digits.domain, spec, own)])
    images = stream.normal(size=(3, 31, 20, 3)).astype(np.float32)
    expected = family.predict(images, domain="digits")
    assert expected.std() > 0.01
    for fold_norm in (False, True):
        folded = family.fold("digits", fold_norm=fold_norm)
        np.testing.assert_allclose(folded.predict(images), expected, atol=1e-5)
    half = jax.jit(lambda x: apply(family, "digits", x, dtype=jnp.bfloat16))(images)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(jax.nn.softmax(half), expected, atol=0.1)


def fitted(family, name, digits, placement):
    split = digits.splits["train"]
    return rj.fit(
        family,
        name,
        whole(split, range(48)),
        split.targets[:48],
        adapter=rj.Parallel(),
        placement=placement,
        domain=rj.DomainOptions(size=16, resize=16, flip=False),
        options=rj.TrainOptions(steps=2, evals=1, batch_size=16),
        progress=False,
    )


def test_a_domain_is_trained_saved_compressed_and_served(digits, pixels, tmp_path, caplog):
    spec = rj.ModelSpec(Basic(0.125, small_input=True))
    source = rj.initial_variables(spec, 5, seed=0)
    domain = rj.Domain("source", tuple("abcde"), (0.5,) * 3, (0.5,) * 3, 16, 16)
    shared = rj.Shared(source.pop("params"), spec.backbone, source="source")
    family = rj.Family(shared, [rj.Member(domain, spec, source)])
    before = family.fingerprint
    fitted(family, "digits", digits, rj.Placement(convs=Basic.convs))
    assert family.fingerprint == before
    assert "on a 1x1 convolution is as large" not in caplog.text, "most convolutions are 3x3"
    alphas = rj.svd(family["digits"], 1)
    assert set(alphas) == {conv for conv, *_ in spec.backbone.convolutions()}
    assert all(np.abs(beta).max() > 0 for beta, _ in alphas.values()), "they were trained"
    family.save(tmp_path)
    again = rj.Family.load(tmp_path, backbones=OWN)
    names = ["source", "digits"] * 2
    mixed = again.predict(pixels, domains=names)
    for name in ("source", "digits"):
        alone = family.predict(pixels, domain=name)
        rows = [row for row, it in enumerate(names) if it == name]
        np.testing.assert_allclose(mixed[rows][:, : alone.shape[1]], alone[rows], atol=1e-5)
    joint = rj.compress_family(family, "joint", rj.rank_rule("uniform", share=1.0))
    np.testing.assert_allclose(joint.predict(pixels, domain="digits"), alone, atol=1e-4)
    joint.export("digits", tmp_path / "digits.stablehlo", platforms="cpu")
    program = export.deserialize(bytearray((tmp_path / "digits.stablehlo").read_bytes()))
    np.testing.assert_allclose(program.call(pixels), alone, atol=1e-4)


def test_dense_adapters_on_1x1_convolutions_say_what_they_cost(digits, caplog):
    spec = rj.ModelSpec(Bottleneck(1 / 16, small_input=True))
    params = rj.initial_variables(spec, 2, seed=0)["params"]
    family = rj.Family(rj.Shared(params, spec.backbone))
    placement = rj.Placement(convs=("first", "third", "shortcut"), stages=Bottleneck.stages[1:])
    fitted(family, "digits", digits, placement)
    assert "digits: its parallel adapters have 1.00 times the parameters" in caplog.text
    assert "Low-rank or joint adapters are smaller" in caplog.text


@pytest.mark.parametrize("made", RESNETS, ids=lambda made: made.name)
def test_names_tell_the_depth(made):
    state = state_of(made.blocks, issubclass(made, BottleneckResNet), stem=1, classes=4)
    shuffled = {f"module.{name}": state[name] for name in sorted(state, reverse=True)}
    family = rj.family_of_resnet(shuffled, name="four")
    assert (family.shared.backbone, family.shared.source) == (made(1 / 64), "four")
    assert family["four"].domain.classes == tuple("0123")


def test_facts_of_the_source_domain(tmp_path):
    family = rj.family_of_resnet(state_of(ResNet18.blocks, False, stem=1, classes=1000))
    domain = family["imagenet"].domain
    assert (domain.size, domain.resize, domain.interpolation) == (224, 256, "bilinear")
    assert (domain.mean[0], domain.std[0]) == (0.485, 0.229)
    assert (domain.classes[281], len(domain.classes)) == ("tabby", 1000)
    family.save(tmp_path)
    again = rj.Family.load(tmp_path)
    assert again["imagenet"].domain == domain
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    )
    seen = again.preprocess(picture, domain="imagenet")
    resized = np.asarray(picture.resize((341, 256), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(seen[0], resized[16:240, 58:282])
    facts = domain.to_json()
    del facts["interpolation"]  # a card from before
    assert rj.Domain.from_json(facts).interpolation == "bicubic"
    with pytest.raises(ValueError, match=r"interpolation 'cubic'; expected one of \['bicubic'"):
        rj.family_of_resnet(state_of(ResNet18.blocks, False, stem=1), interpolation="cubic")
    assert rj.DomainOptions().like(domain).interpolation == "bilinear"
    assert rj.DomainOptions(interpolation="bicubic").like(domain).interpolation == "bicubic"
    assert rj.DomainOptions().like(None).interpolation == "bicubic"


def test_a_small_stem_sees_small_images():
    state = state_of(ResNet18.blocks, False, stem=1, small=True)
    domain = rj.family_of_resnet(state, classes=tuple("abcde"))["imagenet"].domain
    assert (domain.size, domain.resize, domain.classes[4]) == (32, 32, "e")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1.weight": None}, r"resnet50 of which 'conv1.weight' is missing; expected the 267"),
        ({"fc.weight": None, "fc.bias": None}, r"'fc.bias' is missing \(and 1 more"),
        ({"layer3.2.bn2.running_var": None}, r"'layer3.2.bn2.running_var' is missing"),
        ({"layer1.0.se.fc1.weight": 1}, "'layer1.0.se.fc1.weight' is not one of its tensors"),
        ({"layer1.3.conv1.weight": 1}, r"found \(4, 4, 6, 3\) blocks .* of 3 convolutions each"),
        ({"layer1.0.conv3.weight": None}, r"resnet50 of which 'layer1.0.conv3.weight' is missing"),
        ({"conv1.weight": np.zeros((1, 3, 5, 5))}, r"conv1.weight of shape \(1, 3, 5, 5\)"),
        # Grouped, as ResNeXt's are, and of a wide ResNet.
        ({"layer2.1.conv2.weight": np.zeros((2, 1, 3, 3))}, r"conv2/kernel: found \(3, 3, 1, 2\)"),
        ({"layer1.0.conv1.weight": np.zeros((2, 1, 1, 1))}, r"conv1/kernel: found \(1, 1, 1, 2\)"),
        ({"layer1.0.conv1.weight": np.zeros((1, 1))}, r"conv1/kernel: found \(1, 1\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes, message):
    state = {**state_of(ResNet50.blocks, True, stem=1), **changes}
    with pytest.raises(ValueError, match=message):
        rj.family_of_resnet({name: it for name, it in state.items() if it is not None})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_imported_by_command(suffix, tmp_path, capsys):
    state, file = state_of(ResNet18.blocks, False, stem=1, classes=3), tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        file.write_bytes(zipped({"state_dict": state, "epoch": 90}))
    else:
        save_file(state, file)
    __main__.main(["import", str(file), "--out", str(tmp_path / "run"), "--name", "rocks"])
    printed = capsys.readouterr().out
    assert "ResNet of torchvision or timm, resnet18, adapters: none" in printed
    assert "102 of 122 tensors used, none is missing" in printed
    assert "unused: 20 counts of batches" in printed
    found = rj.Family.load(tmp_path / "run")
    expected = rj.family_of_resnet(state, name="rocks")
    chex.assert_trees_all_equal(found.variables("rocks"), expected.variables("rocks"))
    save_file({name: it for name, it in state.items() if name != "fc.bias"}, tmp_path / "cut")
    with pytest.raises(SystemExit, match=r"error: found a resnet18 of which 'fc.bias' is missing"):
        __main__.main(["import", str(tmp_path / "cut"), "--out", str(tmp_path / "none")])


@pytest.mark.skipif(not PARITY.is_dir(), reason="the reference values are not here")
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_reference_values(arch, tmp_path, monkeypatch, capsys):
    """Through the command line, for the full width: a .pth file, and a safetensors file."""
    monkeypatch.syspath_prepend(str(PARITY))
    recipe = __import__("resnet_recipe")
    monkeypatch.delitem(sys.modules, "resnet_recipe")
    with np.load(PARITY / f"{arch}_dev.npz") as file:
        reference = dict(file)
    meta = json.loads(str(reference["meta"]))
    state = recipe.state_dict(arch, meta["seed"], reference)
    if arch == "resnet18":
        (tmp_path / "weights").write_bytes(zipped(state))
    else:
        save_file(state, tmp_path / "weights")
    __main__.main(["import", str(tmp_path / "weights"), "--out", str(tmp_path / "run")])
    assert f"{arch}, adapters: none" in capsys.readouterr().out
    family = rj.Family.load(tmp_path / "run")
    model, variables = family.model("imagenet"), family.variables("imagenet")

    @jax.jit
    def seen(variables, images):
        found, state = model.apply(
            variables,
            images,
            train=False,
            capture_intermediates=lambda module, _: module.name in model.backbone.stages,
        )
        return found, {
            name: it["__call__"][0] for name, it in state["intermediates"].items() if name != "stem"
        }

    for height, width in meta["sizes"]:
        images = recipe.images(meta["seed"], 2, height, width).transpose(0, 2, 3, 1)
        found, stages = seen(variables, images)
        size = f"{height}x{width}"
        np.testing.assert_allclose(found, reference[f"logits/{size}"], atol=1e-4)
        features = stages["stage4"].mean((1, 2))
        np.testing.assert_allclose(features, reference[f"features/{size}"], atol=1e-4)
        last = reference[f"layer4/{size}"].transpose(0, 2, 3, 1)
        atol = 1e-4 * np.abs(last).max()
        np.testing.assert_allclose(stages["stage4"][..., : last.shape[-1]], last, atol=atol)
        for stage in (1, 2, 3, 4):
            means, expected = stages[f"stage{stage}"].mean((1, 2)), f"layer{stage}mean/{size}"
            np.testing.assert_allclose(means, reference[expected], atol=1e-4)
