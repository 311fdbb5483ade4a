"""What every network does with every kind of adapter: one small network of each file in models/."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from families import whole
from jax import export

import radapt_jax as rj
from radapt_jax.adapters import KINDS, make_options
from radapt_jax.adapters.base import is_adapters
from radapt_jax.family import bits
from radapt_jax.models import BACKBONES, make_backbone
from radapt_jax.utils import trees

SMALL = {
    "resnet26": make_backbone("resnet26", width=1 / 16),
    "resnet20": make_backbone("resnet20", width=1 / 8),
    "resnet18": make_backbone("resnet18", width=1 / 16),
    "resnet50": make_backbone("resnet50", width=1 / 16, small_input=True),
    "ram28 a": make_backbone("ram28", width=1 / 8, blocks=1),
    "ram28 b": make_backbone("ram28", width=1 / 8, blocks=1, variant="b"),
    "efficientnet_lite0": make_backbone("efficientnet_lite0", width=1 / 4),
}
# Those that share variables come from compression.
ADAPTED = [kind for kind, made in KINDS.items() if made.leaves and not made.shares()]
COMPUTED = ("series", "parallel", "low_rank")  # on every network; the others on one
ONE = "resnet20"


def kinds_on(name):
    return ADAPTED if name == ONE else COMPUTED


def spec_of(name, kind):
    return rj.ModelSpec(
        SMALL[name],
        make_options(kind, init="he_normal"),
        rj.Placement(convs=SMALL[name].convs),
    )


def member(name, kind, data, seed):
    """A domain with everything at random, but near the backbone's own."""
    spec = spec_of(name, kind)
    variables = rj.initial_variables(spec, data.domain.num_classes, seed)
    stream = np.random.default_rng(seed)

    def shaken(path, leaf):
        if path.endswith("/scores"):  # of masks: a tenth of the weights is dropped
            return (stream.uniform(0, 1, leaf.shape) > 0.1).astype(np.float32)
        if path.split("/")[-1] in ("kernel", "beta", "gamma"):
            return leaf * 0.3 if is_adapters(path) else leaf
        return leaf + 0.2 * stream.uniform(0, 1, leaf.shape).astype(np.float32)

    own = {name: variables[name] for name in ("adapters", "batch_stats")}
    leaves = {path: shaken(path, leaf) for path, leaf in trees.flatten(own).items()}
    return rj.Member(data.domain, spec, trees.unflatten(leaves), method=kind)


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(4))


@pytest.fixture(scope="module")
def families(digits):
    """By network: a family with a domain of each kind, and one more that is parallel."""
    found = {}
    for name in SMALL:
        params = rj.initial_variables(rj.ModelSpec(SMALL[name]), 2, seed=0)["params"]
        found[name] = rj.Family(rj.Shared(params, SMALL[name]))
        for seed, kind in enumerate(["none", *kinds_on(name)], 1):
            found[name].add(kind, member(name, kind, digits, seed))
        found[name].add("other", member(name, "parallel", digits, 9))
    return found


def test_every_file_of_networks_is_tried():
    tried = {type(backbone).__module__ for backbone in SMALL.values()}
    assert tried == {made.__module__ for made in BACKBONES.values()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in SMALL for kind in kinds_on(name) if KINDS[kind].foldable],
)
def test_folded_it_predicts_the_same(name, kind, families, pixels):
    family = families[name]
    found = family.predict(pixels, domain=kind)
    plain = family.predict(pixels, domain="none")
    assert np.abs(found - plain).max() > 1e-3, "the adapters change what is predicted"
    for fold_norm in (False, True):
        folded = family.fold(kind, fold_norm=fold_norm)
        np.testing.assert_allclose(folded.predict(pixels), found, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_mixed_batch_is_its_domains_apart(name, families, pixels):
    family = families[name]
    names = ["parallel", "other", "series", "parallel"]
    mixed = family.predict(pixels, domains=names)
    for row, domain in enumerate(names):
        alone = family.predict(pixels, domain=domain)[row]
        np.testing.assert_allclose(mixed[row], alone, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_joint_compression_at_full_rank_changes_nothing(name, families, pixels):
    family = families[name]
    domains = ["parallel", "other"]
    ranks = rj.rank_rule("energy", energy=1.0)
    joint = rj.compress_family(family, "joint", ranks, domains=domains)
    assert joint.shared.basis is not None
    for domain in domains:
        expected = family.predict(pixels, domain=domain)
        np.testing.assert_allclose(joint.predict(pixels, domain=domain), expected, atol=1e-4)
    mixed = joint.predict(pixels, domains=domains * 2)
    folded = joint.fold("other").predict(pixels)
    np.testing.assert_allclose(mixed[1::2], folded[1::2], atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_saved_loaded_and_exported_it_predicts_the_same(name, families, pixels, tmp_path):
    family = families[name]
    expected = family.predict(pixels, domain="parallel")
    family.save(tmp_path / "run")
    family.save_domain("parallel", tmp_path / "file.safetensors")
    again = rj.Family.load(tmp_path / "run", ["none"])
    again.load_domain(tmp_path / "file.safetensors", "again")
    np.testing.assert_array_equal(again.predict(pixels, domain="again"), expected)
    family.export("parallel", tmp_path / "it.stablehlo", platforms="cpu")
    exported = export.deserialize((tmp_path / "it.stablehlo").read_bytes())
    np.testing.assert_allclose(exported.call(pixels), expected, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_it_is_trained_in_bfloat16_on_several_devices(name, families, digits):
    split = digits.splits["train"]
    options = rj.TrainOptions(
        steps=2, evals=1, batch_size=16, dtype="bfloat16", sync_norm=True, learning_rate=0.01
    )
    family = rj.Family(families[name].shared)
    before = family.fingerprint
    history = rj.fit(
        family,
        "it",
        whole(split, range(40)),
        split.targets[:40],
        adapter=rj.Parallel(),
        placement=rj.Placement(convs=SMALL[name].convs),
        domain=rj.DomainOptions(size=16, resize=16, flip=False),
        options=options,
        progress=False,
    )
    assert np.isfinite([row.loss for row in history.rows]).all()
    leaves = trees.flatten(family["it"].variables["adapters"])
    alphas = {path: leaf for path, leaf in leaves.items() if is_adapters(path)}
    assert alphas
    assert all(np.abs(leaf).max() > 0 for leaf in alphas.values()), "all of them were trained"
    assert family.fingerprint == before


def adapter_parameters(backbone, kind):
    own = rj.ModelSpec(backbone, make_options(kind)).abstract(1)["adapters"]
    leaves = trees.flatten(own)
    return sum(int(np.prod(it.shape)) for path, it in leaves.items() if is_adapters(path))


def test_the_table_of_networks():
    """Parameters by backbone in docs/networks.md."""
    rows = {}
    for line in (ROOT / "docs" / "networks.md").read_text().splitlines():
        if match := re.match(r"\| `(\w+)` \|(( [\d,]+ \|){4})", line):
            rows[match[1]] = [int(it.replace(",", "")) for it in re.findall(r"[\d,]+", match[2])]
    assert rows.keys() == BACKBONES.keys()
    for name, found in rows.items():
        backbone = make_backbone(name)
        own = [adapter_parameters(backbone, kind) for kind in ("series", "parallel", "low_rank")]
        assert found == [rj.Shared({}, backbone).backbone_parameters(), *own], name


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_fits(name):
    """It counts what it adds, and folded filters have the shapes of the network's own."""
    plain = rj.ModelSpec(SMALL[name]).abstract(1)
    for kind in KINDS:
        spec = spec_of(name, kind)
        abstract = spec.abstract(1)
        own, sites = trees.flatten(abstract["adapters"]), spec.sites()
        assert bool(sites) == (kind != "none")
        for site in sites:
            start = f"{site.conv}/adapter/"
            inside = {path: it for path, it in own.items() if path.startswith(start)}
            assert bits.count(spec, inside) == spec.kind.parameters(spec.adapter, site), site
        if spec.kind.foldable:
            folded = jax.eval_shape(functools.partial(rj.fold, spec), abstract)
            trees.check_like(folded, plain, f"{kind}, folded,")


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_of_float32(name):
    spec = spec_of(name, "parallel")
    model = spec.build(3, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    logits = jax.eval_shape(lambda *of: model.apply(*of, train=False), spec.abstract(3), x)
    assert (logits.shape, logits.dtype) == ((1, 3), jnp.float32)
