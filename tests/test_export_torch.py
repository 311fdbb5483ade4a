"""A domain as PyTorch's state_dict: read back by our own importers, and by PyTorch's classes."""

import json

import jax
import numpy as np
import pytest
from families import empty_family, member_of, whole
from safetensors import safe_open
from safetensors.numpy import load_file
from torch_resnets import shapes

import radapt_jax as rj
from radapt_jax import __main__
from radapt_jax.models import ResNet18, ResNet20, ResNet26, ResNet50
from radapt_jax.models.resnet import BasicResNet
from radapt_jax.utils import trees

# Widths, and what reads them again.
NETWORKS = {
    "resnet18": (ResNet18, 1 / 16, rj.family_of_resnet),
    "resnet50": (ResNet50, 1 / 16, rj.family_of_resnet),
    "resnet20": (ResNet20, 1 / 4, rj.family_of_resnet_cifar),
    "resnet26": (ResNet26, 1 / 8, rj.family_of_original),
}


class Unknown(BasicResNet):
    name = "unknown"
    blocks = (1, 1, 1, 1)


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(4))


def family_of(digits, made, width, kind):
    family = empty_family(width, made)
    family.add("digits", member_of(digits, kind, 1, width=width, made=made))
    return family


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("resnet18", "series"), ("resnet18", "none"), ("resnet50", "parallel")),
        *(("resnet20", "series"), ("resnet26", "low_rank"), ("resnet26", "series")),
    ],
)
def test_an_exported_domain_is_imported_again(name, kind, digits, pixels, tmp_path):
    made, width, read = NETWORKS[name]
    family = family_of(digits, made, width, kind)
    file = tmp_path / "digits.safetensors"
    rj.export_torch(family, "digits", file)
    again = read(load_file(file), name="again", classes=digits.domain.classes)
    assert again.shared.backbone == made(width)
    assert again["again"].spec == rj.ModelSpec(made(width))
    domain = digits.domain
    images = ((pixels / 255 - domain.mean) / domain.std).astype(np.float32)
    expected = family.predict(images, domain="digits")
    assert np.ptp(expected, 0).max() > 1e-3
    np.testing.assert_allclose(again.predict(images, domain="again"), expected, atol=1e-5)
    folded = trees.flatten(family.fold("digits").weights.variables)
    found = trees.flatten(again.variables("again"))
    assert found.keys() == folded.keys()
    for path, leaf in folded.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def test_names_and_shapes_are_those_of_torchvision(digits, tmp_path):
    file = tmp_path / "digits.safetensors"
    rj.export_torch(family_of(digits, ResNet50, 1 / 16, "parallel"), "digits", file)
    state = load_file(file)
    expected = shapes(ResNet50.blocks, True, stem=4, classes=10)
    assert {name: leaf.shape for name, leaf in state.items()} == expected
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(counters) == 53
    for name, leaf in state.items():
        assert leaf.dtype == (np.int64 if name in counters else np.float32), name
        assert name not in counters or leaf == 0
    with safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "pt"
    assert rj.Domain.from_json(json.loads(metadata["domain"])) == digits.domain


def test_by_command(digits, pixels, tmp_path, capsys):
    family = family_of(digits, ResNet18, 1 / 16, "parallel")
    family.save(tmp_path / "run")
    file = tmp_path / "digits.safetensors"
    __main__.main(["export-torch", str(tmp_path / "run"), "digits", str(file)])
    assert "digits, a resnet18 in the layout of PyTorch" in capsys.readouterr().out
    __main__.main(["import", str(file), "--out", str(tmp_path / "again"), "--name", "digits"])
    assert "none is missing" in capsys.readouterr().out
    again = rj.Family.load(tmp_path / "again")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(
        *(it.predict(images, domain="digits") for it in (again, family)), atol=1e-5
    )
    with pytest.raises(SystemExit, match="error: "):
        __main__.main(["export-torch", str(tmp_path / "run"), "nothing", str(file)])


def test_what_cannot_be_exported_is_named(digits, tmp_path):
    family = family_of(digits, Unknown, 1 / 16, "none")
    with pytest.raises(ValueError, match=r"found backbone 'unknown'.*expected one of \['resnet18'"):
        rj.export_torch(family, "digits", tmp_path / "file")
    known = family_of(digits, ResNet18, 1 / 64, "none")
    with pytest.raises(KeyError, match="nothing"):
        rj.export_torch(known, "nothing", tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        rj.export_torch(known, "digits", tmp_path / "folder")
    assert not list(tmp_path.glob("file"))


@pytest.mark.parametrize(("made", "kind"), [(ResNet18, "series"), (ResNet50, "parallel")])
@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_pytorch_computes_the_same(package, made, kind, digits, tmp_path):
    """A file of the full width is loaded strictly into the package's own class."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip(package)
    from safetensors.torch import load_file as load_torch

    family = family_of(digits, made, 1.0, kind)
    file = tmp_path / "digits.safetensors"
    rj.export_torch(family, "digits", file)
    make = library.models.get_model if package == "torchvision" else library.create_model
    model = make(made.name, num_classes=10).eval()
    model.load_state_dict(load_torch(file), strict=True)
    images = np.random.default_rng(0).normal(size=(2, 75, 101, 3)).astype(np.float32)
    with torch.no_grad():
        found = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    network = family.model("digits")
    compute = jax.jit(lambda variables, x: network.apply(variables, x, train=False))
    expected = compute(family.variables("digits"), images)
    assert np.ptp(expected, 0).max() > 1e-2
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    print(
        f"{package} {made.name}: {np.abs(found - expected).max():.2g} of {np.abs(found).max():.3g}"
    )
