"""Networks of one's own, unchanged, as backbones."""

import dataclasses
import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from flax import linen as nn
from jax import export
from own_networks import ConvNeXt, ResNet, ViT

import radapt_jax as rj
from radapt_jax.adapters import make_options
from radapt_jax.models.own.layers import examine
from radapt_jax.serve.alone import Alone
from radapt_jax.serve.facts import Facts
from radapt_jax.train.devices import ManyDomains, OneDomain
from radapt_jax.train.job import Job
from radapt_jax.utils import trees

SIZE = 16
FACTS = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": SIZE, "resize": SIZE}
ATTENTION = re.compile("attention/(query|out)$")
NETWORKS = {  # module, and where it takes adapters
    "resnet": (ResNet, None),
    "convnext": (ConvNeXt, lambda path: path != "stem"),
    "vit": (ViT, ["*/mlp?", ATTENTION]),
}


@functools.cache
def own(name):
    made, where = NETWORKS[name]
    return rj.adapt(made(3), where, name=name, size=SIZE)


def shaken(tree, seed):
    """A tree with values at random near those it has; scales and variances are positive."""
    stream = np.random.default_rng(seed)

    def moved(path, leaf):
        if "/adapter/" in path:
            leaf = 0.3 * leaf
        least = 0 if path.endswith(("scale", "var")) else -0.1
        return (leaf + stream.uniform(least, least + 0.2, leaf.shape)).astype(leaf.dtype)

    return {
        name: trees.unflatten({path: moved(path, leaf) for path, leaf in trees.flatten(it).items()})
        for name, it in tree.items()
    }


@functools.cache
def source(name):
    """The backbone's family, with weights at random: its source domain alone."""
    weights = shaken(own(name).init(0), 1)
    return weights, rj.family_of_network(own(name), weights, **FACTS)


def member(name, kind, domain, seed, classes=4):
    """A domain with adapters, norms and statistics at random."""
    spec = rj.ModelSpec(own(name), make_options(kind, init="he_normal"))
    params = trees.flatten({"params": source(name)[1].shared.params})
    variables = rj.initial_variables(spec, classes, seed, params)
    del variables["params"]
    names = tuple(map(str, range(classes)))
    return rj.Member(rj.Domain(domain, names, **FACTS), spec, shaken(variables, seed))


def family(name, kinds):
    made = rj.Family(source(name)[1].shared, [source(name)[1]["source"]])
    for seed, kind in enumerate(kinds):
        made.add(kind, member(name, kind, kind, seed, classes=2 + seed))
    return made


def images(count=3, seed=0):
    stream = np.random.default_rng(seed)
    return stream.integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def normalised(found):
    return (found / 255 - 0.5) / 0.25


def original(name, classes, variables, found):
    """Logits of the network itself, which nothing intercepts."""
    module = NETWORKS[name][0](classes)
    flag = {"resnet": {"train": False}, "vit": {"deterministic": True}}.get(name, {})
    return module.apply(variables, normalised(found), **flag)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_source_domain_is_the_network_itself(name):
    weights, made = source(name)
    expected = jax.nn.softmax(original(name, 3, weights, images()))
    np.testing.assert_allclose(made.predict(images(), domain="source"), expected, atol=1e-6)
    stored = trees.flatten(made.variables("source"))
    for path, leaf in trees.flatten(weights).items():
        if path in stored:
            np.testing.assert_array_equal(stored[path], leaf)
    head = made["source"].variables["adapters"]["head"]
    logits = made.features(images(), domain="source") @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-5)
    again = own(name).plain_variables(made.variables("source"))
    assert trees.fingerprint(again) == trees.fingerprint(weights)


@pytest.mark.parametrize("kind", ["parallel", "low_rank"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_domain_is_run_by_the_network_itself(name, kind):
    made = family(name, [kind])
    expected = made.predict(images(), domain=kind)
    assert expected.max() < 0.99, "too sure of itself to be compared"
    assert np.abs(expected - made.predict(images(), domain="source")[:, :2]).max() > 1e-3
    folded = made.fold(kind)
    np.testing.assert_allclose(folded.predict(images()), expected, atol=1e-5)
    plain = own(name).plain_variables(folded.weights.variables)
    found = jax.nn.softmax(original(name, 2, plain, images()))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_fold_where_nothing_else_takes_what_they_take(name):
    """The last batch norm of a block has a scale of 0 at first; LayerNorm stays as it is."""
    made = family(name, ["parallel"])
    folded = made.fold("parallel", fold_norm=True)
    expected = made.predict(images(), domain="parallel")
    np.testing.assert_allclose(folded.predict(images()), expected, atol=1e-5)
    left = [path for path in trees.flatten(folded.weights.variables) if path.endswith("/mean")]
    assert not left
    if name == "resnet":
        with pytest.raises(ValueError, match="and not its norms"):
            own(name).plain_variables(folded.weights.variables)


def test_a_constant_goes_into_a_bias_or_a_batch_norm_or_is_refused():
    """Of series adapters: the stem has a bias, other convolutions a norm that takes them alone."""
    made = family("resnet", ["series"])
    folded = made.fold("series")
    expected = made.predict(images(), domain="series")
    np.testing.assert_allclose(folded.predict(images()), expected, atol=1e-5)
    before, after = (
        trees.flatten(it) for it in (made.variables("series"), folded.weights.variables)
    )
    assert np.abs(after["params/stem/bias"] - before["params/stem/bias"]).max() > 1e-3
    np.testing.assert_array_equal(after["batch_stats/bn/mean"], before["batch_stats/bn/mean"])
    path = "batch_stats/block1/shortcut_norm/mean"
    assert np.abs(after[path] - before[path]).max() > 1e-3

    bare = rj.adapt(Forked(3), size=SIZE)
    assert {layer.path: layer.norm for layer in bare.layers} == {"alone": "norm", "forked": None}
    spec = rj.ModelSpec(bare, make_options("series", init="he_normal"))
    with pytest.raises(ValueError, match="on forked, which has no bias and no batch norm"):
        rj.fold(spec, rj.initial_variables(spec, 3, 0))


def test_a_domain_that_cannot_be_folded_is_exported_as_it_is(tmp_path):
    bare = rj.adapt(Forked(3), size=SIZE)
    made = rj.family_of_network(bare, shaken(bare.init(0), 1), **FACTS)
    spec = rj.ModelSpec(bare, make_options("series", init="he_normal"))
    params = trees.flatten({"params": made.shared.params})
    variables = rj.initial_variables(spec, 3, 0, params)
    del variables["params"]
    made.add("new", rj.Member(rj.Domain("new", ("a", "b", "c"), **FACTS), spec, variables))
    with pytest.raises(ValueError, match="no bias and no batch norm"):
        made.fold("new")
    made.export("new", tmp_path / "new.stablehlo", platforms="cpu")
    exported = export.deserialize((tmp_path / "new.stablehlo").read_bytes())
    expected = made.predict(images(), domain="new")
    np.testing.assert_allclose(exported.call(images()), expected, atol=1e-5)
    facts = Facts.of(made["new"], made["new"].card())  # served as it is, too
    served = Alone(facts.key, 3)
    served.hold(facts, made.variables("new"))
    np.testing.assert_allclose(served.predict(images(), facts=facts), expected, atol=1e-5)


def test_a_network_with_folded_norms_can_be_described():
    domain = family("resnet", ["parallel"]).fold("parallel", fold_norm=True)
    folded = domain.weights
    found = trees.flatten(folded.spec.abstract(domain.domain.num_classes))
    assert {path: leaf.shape for path, leaf in found.items()} == {
        path: leaf.shape for path, leaf in trees.flatten(folded.variables).items()
    }


class Forked(nn.Module):
    """One convolution whose output goes to a norm, and one whose output goes elsewhere, too."""

    num_classes: int

    @nn.compact
    def __call__(self, x, training=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not training)
        x = norm(name="norm")(nn.Conv(4, (3, 3), use_bias=False, name="alone")(x))
        y = nn.Conv(4, (3, 3), use_bias=False, name="forked")(x)
        return nn.Dense(self.num_classes)((y + norm(name="other")(y)).mean((1, 2)))


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_batches_files_and_joint_compression(name, tmp_path):
    kinds = ["none", "parallel", "low_rank"]
    made = family(name, kinds)
    mixed = made.predict(images(3), domains=kinds)
    for row, (kind, found) in enumerate(zip(kinds, mixed, strict=True)):
        expected = made.predict(images(3)[row : row + 1], domain=kind)[0]
        np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)

    made.save(tmp_path / "family")
    made.save_domain("parallel", tmp_path / "parallel.safetensors")
    with pytest.raises(ValueError, match=rf"found backbone '{name}'"):
        rj.Family.load(tmp_path / "family")
    module, where = NETWORKS[name]
    same = rj.adapt(module(3), where, name=name, size=SIZE)
    again = rj.Family.load(tmp_path / "family", backbones={name: same})
    expected = made.predict(images(), domain="parallel")
    np.testing.assert_array_equal(again.predict(images(), domain="parallel"), expected)
    again.load_domain(tmp_path / "parallel.safetensors", "copy")
    np.testing.assert_array_equal(again.predict(images(), domain="copy"), expected)

    joint = rj.compress_family(made, "joint", rj.rank_rule("uniform", share=1.0))
    np.testing.assert_allclose(joint.predict(images(), domain="parallel"), expected, atol=1e-5)
    folded = own(name).plain_variables(joint.fold("parallel").weights.variables)
    found = jax.nn.softmax(original(name, 3, folded, images()))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_export(tmp_path):
    made = family("vit", ["parallel"])
    made.export("parallel", tmp_path / "vit.stablehlo", platforms="cpu")
    exported = export.deserialize((tmp_path / "vit.stablehlo").read_bytes())
    expected = made.predict(images(), domain="parallel")
    np.testing.assert_allclose(exported.call(images()), expected, atol=1e-5)


RUN = """
import sys, numpy as np
from flax.traverse_util import unflatten_dict
from own_networks import ResNet

found = np.load(sys.argv[1])
variables = unflatten_dict({key: found[key] for key in found.files if key != "images"}, sep="/")
np.save(sys.argv[2], ResNet(2).apply(variables, found["images"], train=False))
assert not [name for name in sys.modules if name.startswith("radapt_jax")]
"""


def test_a_process_without_this_library_runs_a_folded_domain(tmp_path):
    made = family("resnet", ["parallel"])
    plain = own("resnet").plain_variables(made.fold("parallel").weights.variables)
    np.savez(tmp_path / "in.npz", images=normalised(images()), **trees.flatten(plain))
    arguments = ["-c", RUN, str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, *arguments], cwd=ROOT / "tests", check=True)
    found = jax.nn.softmax(np.load(tmp_path / "out.npy"))
    expected = made.predict(images(), domain="parallel")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_training_takes_what_the_network_says_of_its_norms():
    """Statistics of the batch whatever the call says, with each norm's momentum, biased."""
    spec = rj.ModelSpec(own("resnet"))
    variables = {**source("resnet")[1].variables("source")}
    x = jnp.asarray(normalised(images(4)), jnp.float32)
    expected, changed = ResNet(3).apply(source("resnet")[0], x, train=True, mutable="batch_stats")
    found, ours = spec.build(3).apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for path, leaf in trees.flatten(changed["batch_stats"]).items():
        np.testing.assert_allclose(trees.flatten(ours["batch_stats"])[path], leaf, atol=1e-6)

    @dataclasses.dataclass(frozen=True)
    class Still:
        """Calls the network as at evaluation, always."""

        def __call__(self, module, images, train):
            return module(images, train=False)

    still = rj.adapt(ResNet(3), name="still", size=SIZE, call=Still())
    found = rj.ModelSpec(still).build(3).apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet", rj.Parallel(dropout=(0.1, 0.1))),
        ("convnext", rj.Series()),
        ("vit", rj.LowRank()),
    ],
    ids=NETWORKS,
)
def test_fit_on_several_devices_freezes_what_is_shared(name, options, tmp_path):
    made = rj.Family(source(name)[1].shared, [source(name)[1]["source"]])
    before = trees.fingerprint(made.shared.params)
    training = rj.TrainOptions(steps=2, batch_size=16, learning_rate=0.1)
    labels = np.arange(32) % 4
    arguments = {"adapter": options, "options": training, "validation": 0, "progress": False}
    rj.fit(made, "new", images(32), labels, workdir=tmp_path, **arguments)
    assert trees.fingerprint(made.shared.params) == before
    start, end = (trees.flatten(made[it].variables["adapters"]) for it in ("source", "new"))
    moved = {path for path in start.keys() & end.keys() if "head/" not in path}
    assert moved
    for path in moved:
        assert np.abs(end[path] - start[path]).max() > 0, path
    assert any(np.abs(leaf).max() > 0 for path, leaf in end.items() if "/adapter/" in path)
    again = rj.Family(made.shared, [made["source"]])
    rj.fit(again, "new", images(32), labels, **arguments)
    assert trees.fingerprint(again["new"].variables) == trees.fingerprint(made["new"].variables)


def test_domains_trained_at_once_get_what_they_get_alone(digits, faces):
    """Stacked on one device, so that every layer is mapped over domains."""
    spec = rj.ModelSpec(own("resnet"), make_options("parallel", init="he_normal"))
    params = trees.flatten({"params": source("resnet")[1].shared.params})
    options = rj.TrainOptions(steps=2, batch_size=8, learning_rate=0.001)
    jobs = [
        Job(options, data, spec, rj.initial_variables(spec, data.domain.num_classes, 0, params))
        for data in (digits, faces)
    ]
    together = ManyDomains(jobs, [job.start() for job in jobs], jax.devices()[:1])
    losses = [together.step(index)["loss"] for index in range(2)]
    for index, job in enumerate(jobs):
        alone = OneDomain([job], [job.start()], jax.devices()[:1])
        found = [np.ravel(alone.step(step)["loss"])[0] for step in range(2)]
        np.testing.assert_allclose([np.ravel(it)[index] for it in losses], found, rtol=1e-4)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_each_device_draws_its_own_dropout(name):
    """The network's own layers draw where they run; adapters for the batch of all devices."""
    adapter = make_options("parallel", init="he_normal", dropout=(0.5, 0.5))
    spec = rj.ModelSpec(own(name), adapter)
    model = spec.build(3, axis_name="devices")
    variables = rj.initial_variables(spec, 3, 0)
    batch = np.repeat(images(1), 4, 0) / 255 - 0.5

    def logits(share, key):
        return model.apply(
            variables, share, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )[0]

    run = jax.pmap(logits, axis_name="devices", in_axes=(0, None), devices=jax.devices()[:2])
    found = run(batch.reshape(2, 2, *batch.shape[1:]), jax.random.key(0))
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_finetuning_and_bfloat16():
    made = rj.Family(source("vit")[1].shared, [source("vit")[1]["source"]])
    training = rj.TrainOptions(
        steps=2,
        batch_size=8,
        dtype="bfloat16",
        decay={"filters": 0.0, "adapters": None, "norms": 0.0, "head": 0.0},
    )
    rj.fit(
        made,
        "new",
        images(16),
        np.arange(16) % 2,
        adapter=rj.NoAdapter(),
        options=training,
        validation=0,
        progress=False,
    )
    assert made["new"].method == "finetune"
    own_weights = trees.flatten(made["new"].variables["params"])
    for path, leaf in trees.flatten(made.shared.params).items():
        assert own_weights[path].dtype == np.float32
        assert np.abs(own_weights[path] - leaf).max() > 0, path
    wide = made.predict(images(), domain="new")
    x = jnp.asarray(normalised(images()), jnp.float32)
    spec = made["new"].spec
    narrow = spec.build(2, dtype=jnp.bfloat16).apply(made.variables("new"), x, train=False)
    assert narrow.dtype == jnp.float32
    difference = np.abs(jax.nn.softmax(narrow) - wide).max()
    assert 0 < difference < 0.03


def test_bfloat16_reaches_every_layer():
    """No layer of the network computes in float32 when it is told to use bfloat16."""
    made = family("convnext", ["parallel"])
    model = made["parallel"].spec.build(2, dtype=jnp.bfloat16)
    x = jnp.zeros((2, SIZE, SIZE, 3))
    program = jax.make_jaxpr(lambda own: model.apply(own, x, train=False))(
        made.variables("parallel")
    )
    products = re.findall(r":(\w+)\[[\d,]*\] = (?:conv_general|dot_general)", str(program))
    assert products.count("bf16") >= 3
    assert products.count("f32") == 1, "the classifier, which is in float32"


def test_rematerialised_modules_are_reached():
    backbone = rj.adapt(ResNet(3, (6,), wrap=nn.remat), size=SIZE)
    plain = rj.adapt(ResNet(3, (6,)), size=SIZE)
    assert backbone.layers == plain.layers
    assert backbone.convs[1:3] == ("block0/Conv_0", "block0/Conv_1")
    assert all(layer.norm for layer in backbone.layers)
    spec = rj.ModelSpec(backbone, make_options("parallel", init="he_normal"))
    variables = shaken(rj.initial_variables(spec, 3, 0), 0)

    def loss(adapters, model):
        found = {**variables, "adapters": adapters}
        logits, _ = model.apply(found, normalised(images()), train=True, mutable=["batch_stats"])
        return jnp.square(logits).mean()

    expected = rj.ModelSpec(plain, spec.adapter).build(3)
    ours, theirs = (
        trees.flatten(jax.jit(jax.grad(loss), static_argnums=1)(variables["adapters"], model))
        for model in (spec.build(3), expected)
    )
    for path, leaf in theirs.items():
        np.testing.assert_allclose(ours[path], leaf, atol=1e-4, err_msg=path)


class Repeated(nn.Module):
    """Layers in a row, by a transform of Linen."""

    how: str = "scan"

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        if self.how == "scan":
            over = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": 2}
            x, _ = nn.scan(Step, **over)(name="inside")(x, None)
        elif self.how == "vmap":
            over = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
            x = nn.vmap(Step, **over)(name="inside")(x, None)[0]
        else:
            x, _ = nn.jit(Step)(name="inside")(x, None)
        return nn.Dense(3)(x.mean((1, 2)))


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.LayerNorm()(nn.Conv(4, (3, 3), name="conv")(x)), None


@pytest.mark.parametrize("how", ["scan", "vmap"])
def test_repeated_modules_keep_their_layers_and_give_their_norms(how):
    backbone = rj.adapt(Repeated(how), size=SIZE)
    assert backbone.convs == ("stem",)
    with pytest.raises(ValueError, match=r"inside/conv \(Conv\): it is inside nn.scan or nn.vmap"):
        rj.adapt(Repeated(how), "*conv", size=SIZE)
    weights = shaken(backbone.init(0), 0)
    made = rj.family_of_network(backbone, weights, **FACTS)
    expected = jax.nn.softmax(Repeated(how).apply(weights, normalised(images())))
    np.testing.assert_allclose(made.predict(images(), domain="source"), expected, atol=1e-6)
    own_norms = made["source"].variables["adapters"]["inside"]["LayerNorm_0"]["scale"]
    assert own_norms.shape == ((2, 4) if how == "scan" else (4,))


def test_a_compiled_module_is_refused():
    with pytest.raises(ValueError, match=r"inside nn.jit: \['inside/.*Leave nn.jit out"):
        rj.adapt(Repeated("jit"), size=SIZE)


class Odd(nn.Module):
    """Layers that no adapter serves, beside one that it does."""

    @nn.compact
    def __call__(self, x):
        square = (3, 3)
        x = nn.Conv(4, square, name="fine")(x)
        x = nn.ConvTranspose(4, square, name="transposed")(x)
        x = nn.Conv(4, square, padding="CIRCULAR", name="circular")(x)
        x = nn.Conv(4, (1, 3), name="rectangular")(x)
        x = nn.Conv(4, square, kernel_dilation=(1, 2), name="dilated")(x)
        x = nn.Conv(4, square, mask=jnp.ones((3, 3, 4, 4)), name="masked")(x)
        x = nn.Conv(4, square, input_dilation=2, padding=1, name="spread")(x)
        x = nn.WeightNorm(nn.Conv(4, square, name="inside"))(x)
        x = OwnConv(4, square, name="own")(x)
        return nn.Dense(3)(x.mean((1, 2)))


class OwnConv(nn.Conv):
    """A class of its own."""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("transposed", "transposed"),
        ("circular", "its padding is 'CIRCULAR'"),
        ("rectangular", "not square"),
        ("dilated", "moves differently"),
        ("masked", "it sets mask"),
        ("spread", "its input is dilated"),
        ("inside", "normalised by the module around it"),
        ("own", "a class of its own"),
    ],
)
def test_a_layer_that_cannot_be_served_is_named(path, reason):
    anatomy = odd()
    (layer,) = [layer for layer in anatomy.layers if layer.path.endswith(path)]
    assert reason in layer.refused
    assert [layer.path for layer in anatomy.layers if not layer.refused] == ["fine", "Dense_0"]


@functools.cache
def odd():
    return examine(Odd(), lambda module, x, train: module(x), SIZE)


def test_where_and_head():
    assert rj.adapt(Odd(), size=SIZE).convs == ("fine",)
    with pytest.raises(ValueError, match=r"found 8 layers that can carry no adapter:\n  transpos"):
        rj.adapt(Odd(), "*", size=SIZE)
    with pytest.raises(ValueError, match="found no layer where 'nothing' matches; there are:\n  f"):
        rj.adapt(Odd(), "nothing", size=SIZE)
    assert rj.adapt(Odd(), (), size=SIZE).convs == ()
    found = rj.adapt(ViT(3), ["block0/mlp*", re.compile("query$")], size=SIZE)
    assert found.convs == ("block0/attention/query", "block0/mlp1", "block0/mlp2", *found.convs[3:])
    assert found.convs[3:] == ("block1/attention/query",)
    assert found.head == "classifier"
    with pytest.raises(ValueError, match=r"found no nn.Dense at 'head'.*'classifier'"):
        rj.adapt(ViT(3), head="head", size=SIZE)
    with pytest.raises(ValueError, match=r"returns an array of shape \(1, 3\).*\(1, 16\)"):
        rj.adapt(ViT(3), head="block0/mlp1", size=SIZE)
    with pytest.raises(ValueError, match="of a backbone of this library"):
        rj.adapt(ViT(3), name="resnet26", size=SIZE)


class Unusual(nn.Module):
    @nn.compact
    def __call__(self, x, temperature):
        return nn.Dense(3)(nn.Conv(4, (3, 3))(x).mean((1, 2))) / temperature


def test_a_network_with_other_arguments_is_called_as_one_says():
    with pytest.raises(ValueError, match=r"with arguments \['x', 'temperature'\]; .*call=lambda"):
        rj.adapt(Unusual(), size=SIZE)
    backbone = rj.adapt(Unusual(), size=SIZE, call=lambda own, x, train: own(x, temperature=2.0))
    made = rj.family_of_network(backbone, backbone.init(0), classes=("a", "b", "c"), **FACTS)
    assert made.predict(images(), domain="source").shape == (3, 3)


def test_other_weights_and_other_collections_are_refused():
    weights = source("resnet")[0]
    params = {**weights["params"], "stem": {"kernel": np.zeros((7, 7, 3, 9), np.float32)}}
    with pytest.raises(ValueError, match=r"params/stem/kernel: found \(7, 7, 3, 9\).*\(7, 7, 3, 8"):
        rj.family_of_network(own("resnet"), {**weights, "params": params}, **FACTS)

    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("counts", "calls", jnp.zeros, ())
            return nn.Dense(3)(nn.Conv(4, (3, 3))(x).mean((1, 2)))

    with pytest.raises(ValueError, match=r"in the collections \['counts'\]"):
        rj.adapt(Counting(), size=SIZE)


class Named(nn.Module):
    """A layer of a name that this library uses."""

    layer: str

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name=self.layer)(nn.Conv(4, (3, 3), name="first")(x))
        return nn.Dense(3, name="classifier")(x.mean((1, 2)))


def test_names_that_the_library_uses():
    with pytest.raises(ValueError, match=r"found variables .*expected no module called 'adapter'"):
        rj.adapt(Named("adapter"), size=SIZE)
    assert rj.adapt(Named("head"), size=SIZE).convs == ("first",)
    with pytest.raises(ValueError, match="under 'head', where families keep the classifier"):
        rj.adapt(Named("head"), "head", size=SIZE)


def test_without_weights_a_network_starts_as_it_says():
    """Also where a family has no source domain: the last norm of a block has a scale of 0."""
    spec = rj.ModelSpec(own("resnet"), rj.Parallel())
    found = trees.flatten(rj.initial_variables(spec, 5, seed=3))
    theirs = trees.flatten(own("resnet").init(3))
    path = "block0/BatchNorm_2/scale"
    np.testing.assert_array_equal(found[f"adapters/{path}"], 0)
    np.testing.assert_array_equal(found["params/stem/kernel"], theirs["params/stem/kernel"])
    assert found["adapters/head/kernel"].shape == (12, 5)
    assert found.keys() == trees.flatten(spec.abstract(5)).keys()


def test_parameters_of_a_domain_are_counted():
    made = family("convnext", ["parallel", "low_rank"])
    for kind in ("parallel", "low_rank"):
        spec = made[kind].spec
        expected = sum(spec.kind.parameters(spec.adapter, site) for site in spec.sites())
        own_leaves = trees.flatten(made[kind].variables["adapters"])
        found = sum(leaf.size for path, leaf in own_leaves.items() if "/adapter/" in path)
        assert found == expected > 0
