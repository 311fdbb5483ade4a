"""A kind, a backbone and a source from outside: added to the registries, and nothing else."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
from families import Tiny
from flax import linen as nn
from jax import export
from test_end_to_end import small

from radapt_jax import (
    Domain,
    Family,
    Member,
    ModelSpec,
    Placement,
    ResNet26,
    Shared,
    initial_variables,
)
from radapt_jax.adapters import (
    KINDS,
    Adapter,
    Leaf,
    Options,
    make_options,
)
from radapt_jax.adapters.base import Site
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.data.sources.registry import SOURCES
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.family import bits
from radapt_jax.models import BACKBONES
from radapt_jax.utils import trees


@dataclasses.dataclass(frozen=True)
class Gain(Options):
    """One number for each output channel."""

    kind: ClassVar[str] = "gain"


class GainAdapter(Adapter):
    """y = f * x (1 + a)."""

    Options = Gain
    leaves: ClassVar = {"gain": Leaf()}

    @nn.compact
    def __call__(self, x, f, *, train):
        gain = self.leaf("gain", (f.kernel.shape[-1],))
        return f(x, train=train) * (1 + gain)

    @classmethod
    def fold(cls, f, it):
        return f.kernel * (1 + it.own["gain"]), None

    @classmethod
    def parameters(cls, options, site):
        return site.outputs


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(KINDS, "gain", GainAdapter)
    monkeypatch.setitem(BACKBONES, "tiny", Tiny)
    monkeypatch.setitem(SOURCES, "mirrored", mirrored)


def mirrored(spec):
    """The embedded images of a domain, the other way round."""
    source = open_embedded(spec.dataset or spec.name)

    def turned(read):
        return lambda: (it._replace(image=np.ascontiguousarray(it.image[:, ::-1])) for it in read())

    splits = {split: turned(read) for split, read in source.splits.items()}
    return dataclasses.replace(source, splits=splits, key=f"mirrored {source.key}")


def config_of(cache_dir, init_from=""):
    """A recipe that names all three, cut short."""
    config = small("parallel" if init_from else "scratch", cache_dir)
    config.update_from_flattened_dict(
        {
            "method": "ours",
            "domains": "mine" if init_from else "surfaces",
            "init_from": str(init_from),
            "backbone.name": "tiny",
            "backbone.options": {"channels": 4},
            "adapter.kind": "gain" if init_from else "none",
            "data.source": "mirrored",
            "options": {"mine": {"dataset": "faces", "crop": "random", "flip": False}},
        }
    )
    for entry in ("stages", "convs"):
        config.adapter[entry] = ""  # all that the backbone has
    return config


def test_all_three_are_trained_folded_saved_loaded_and_served(
    registered, cache_dir, tmp_path, surface_images
):
    train_and_evaluate(config_of(cache_dir), tmp_path / "backbone")
    rows = train_and_evaluate(config_of(cache_dir, tmp_path / "backbone"), tmp_path / "run")
    assert [(row.domain, row.method) for row in rows] == [("surfaces", "ours"), ("mine", "ours")]
    family = Family.load(tmp_path / "run")
    assert family.shared.backbone == Tiny(4)
    spec = family["mine"].spec
    assert (spec.backbone, spec.adapter, spec.placement) == (
        Tiny(4),
        Gain(),
        Placement(("only",), ("one", "two")),
    )
    gains = [family["mine"].variables["adapters"][conv]["adapter"]["gain"] for conv in Tiny.convs]
    assert all(np.abs(gain).max() > 0 for gain in gains), "they were trained"
    assert sum(gain.size for gain in gains) == 2 * GainAdapter.parameters(
        Gain(), Site("one", 3, 3, 4)
    )
    images = family.preprocess(surface_images[0][:6], domain="mine")
    found = family.predict(images, domain="mine")
    for fold_norm in (False, True):
        folded = family.fold("mine", fold_norm=fold_norm)
        np.testing.assert_allclose(folded.predict(images), found, atol=1e-5)
    mixed = family.predict(images, domains=["mine", "surfaces"] * 3)
    np.testing.assert_allclose(mixed[::2, :2], found[::2], atol=1e-5)
    family.save_domain("mine", tmp_path / "mine.safetensors")
    other = Family.load(tmp_path / "backbone")
    other.load_domain(tmp_path / "mine.safetensors")
    np.testing.assert_array_equal(other.predict(images, domain="mine"), found)
    family.export("mine", tmp_path / "mine.stablehlo", platforms="cpu")
    exported = export.deserialize((tmp_path / "mine.stablehlo").read_bytes())
    np.testing.assert_allclose(exported.call(images), found, atol=1e-5)


def test_a_network_of_ones_own_is_an_argument(tmp_path):
    """Cards only name it: nothing is imported by that name."""
    variables = initial_variables(ModelSpec(Tiny()), 3, seed=0)
    facts = Domain("mine", ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3, size=16, resize=16)
    shared = Shared(variables.pop("params"), Tiny(), source="mine")
    family = Family(shared, [Member(facts, ModelSpec(Tiny()), variables)])
    family.save(tmp_path)
    family.save_domain("mine", tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"found backbone 'tiny'; .*backbones=\{...\}"):
        Family.load(tmp_path)
    again = Family.load(tmp_path, backbones={"tiny": Tiny})
    images = np.zeros((2, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(
        again.predict(images, domain="mine"), family.predict(images, domain="mine")
    )
    again.load_domain(tmp_path / "mine.safetensors", "copy")
    again.save(tmp_path)
    lazily = Family.load(tmp_path, at_most=1, backbones={"tiny": Tiny})
    assert lazily.predict(images, domain="copy").shape == (2, 3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_parameters_of_a_kind_are_those_of_its_variables(kind):
    spec = ModelSpec(ResNet26(0.25), make_options(kind))
    leaves = trees.flatten(spec.abstract(5)["adapters"])
    assert len(spec.sites()) == len(spec.backbone.convolutions())
    for site in spec.sites():
        own = {path: it for path, it in leaves.items() if path.startswith(f"{site.conv}/adapter/")}
        assert bits.count(spec, own) == spec.kind.parameters(spec.adapter, site), site
