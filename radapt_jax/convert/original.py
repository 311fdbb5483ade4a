"""Imports networks trained with the original PyTorch code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from radapt_jax.adapters.registry import make_options
from radapt_jax.convert.layout import Layout
from radapt_jax.convert.torch import LINEAR, NORM, arranged, named, source_family
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.domain import RGB
from radapt_jax.family.family import Family
from radapt_jax.models.backbone import Placement
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees


def _layer(name: str) -> tuple[str, str]:
    """Return the paths of convolution and norm for `pre_layers_conv` or `layer1.0.conv2.1`."""
    if name == "pre_layers_conv":
        return "stem", "stem_norm"
    match = re.fullmatch(r"layer([123])\.([0-3])\.conv(?:(1)|(2)\.1)", name)
    if match is None:
        raise ValueError(f"found layer {name!r}, which is not one of the original network's.")
    stage, block = match[1], int(match[2]) + 1
    conv = match[3] or match[4]
    return f"stage{stage}/block{block}/conv{conv}", f"stage{stage}/block{block}/norm{conv}"


def _place(name: str, domain: int) -> tuple[str, str] | None:
    """Return collection and path of an original name; None for another domain's."""
    if match := re.fullmatch(r"linears\.(\d+)\.(weight|bias)", name):
        path = f"head/{LINEAR[match[2]]}"
        return ("adapters", path) if int(match[1]) == domain else None
    if match := re.fullmatch(r"end_bns\.(\d+)\.0\.(\w+)", name):
        collection, leaf = NORM[match[2]]
        return (collection, f"norm/{leaf}") if int(match[1]) == domain else None
    if match := re.fullmatch(r"(.+)\.parallel_conv\.(\d+)\.conv\.weight", name):
        path = f"{_layer(match[1])[0]}/adapter/kernel"
        return ("adapters", path) if int(match[2]) == domain else None
    if match := re.fullmatch(r"(.+)\.bns\.(\d+)\.0\.conv\.1\.weight", name):
        path = f"{_layer(match[1])[0]}/adapter/kernel"
        return ("adapters", path) if int(match[2]) == domain else None
    if match := re.fullmatch(r"(.+)\.bns\.(\d+)\.0\.conv\.0\.(\w+)", name):
        collection, leaf = NORM[match[3]]
        path = f"{_layer(match[1])[0]}/adapter/norm/{leaf}"
        return (collection, path) if int(match[2]) == domain else None
    # A series adapter precedes the domain norm in a Sequential: `bns.0.1` instead of `bns.0`.
    if match := re.fullmatch(r"(.+?)\.bns\.(\d+)(?:\.1)?\.(\w+)", name):
        collection, leaf = NORM[match[3]]
        return (collection, f"{_layer(match[1])[1]}/{leaf}") if int(match[2]) == domain else None
    if match := re.fullmatch(r"(.+)\.conv\.weight", name):
        return "params", f"{_layer(match[1])[0]}/kernel"
    raise ValueError(f"found variable {name!r}, which is not one of the original network's.")


def _name(path: str) -> str:
    """Undo `_layer`: return the original name of a convolution, with its norms, from a path."""
    if path.startswith("stem"):
        return "pre_layers_conv"
    match = re.fullmatch(r"stage(\d)/block(\d)/(?:conv|norm)(\d)", path)
    assert match is not None, path
    return f"layer{match[1]}.{int(match[2]) - 1}.conv{'1' if match[3] == '1' else '2.1'}"


def _norm_name(path: str) -> str:
    return "end_bns.0.0" if path == "norm" else f"{_name(path)}.bns.0"


# Of a network of one domain, without adapters.
LAYOUT = Layout("linears.0", lambda conv: f"{_name(conv)}.conv", _norm_name, norms=("norm",))


def import_original(state_dict: Mapping[str, Any], domain: int = 0) -> dict[str, Any]:
    """Map a state_dict of the original code to `params`, `adapters` and `batch_stats`.

    Works for networks without adapters, with series adapters (each with an inner norm) and with
    parallel adapters; names are those of https://github.com/srebuffi/residual_adapters.

    Args:
      state_dict: arrays by original name (NumPy arrays, or anything that `np.asarray` takes; call
        `.numpy()` on PyTorch tensors first). A leading "module." is dropped.
      domain: index of the domain whose adapters, norms and head to take.

    Returns:
      Variables of a ResNet-26, as NumPy arrays of the given dtypes.

    Raises:
      KeyError: a norm has a variable that the original code does not have.
      ValueError: a name that the original network does not have, or no such domain.
    """
    leaves = arranged(named(state_dict), lambda tensor: _place(tensor, domain))
    if "adapters/head/kernel" not in leaves:
        heads = sorted(name for name in state_dict if name.endswith("weight") and "linears" in name)
        raise ValueError(f"found no domain {domain} in the state_dict; its heads are {heads}.")
    return trees.unflatten(leaves)


def domains(state_dict: Mapping[str, Any]) -> int:
    """Return how many domains a state_dict has: one for each head."""
    return sum(bool(re.fullmatch(r"linears\.\d+\.weight", name)) for name in named(state_dict))


def unused(state_dict: Mapping[str, Any], domain: int = 0) -> list[str]:
    """Return the names that `import_original` passes over: other domains' and counters.

    Raises:
      ValueError: a name that the original network does not have.
    """
    used = {name for name in named(state_dict) if _place(name, domain)}
    return [name for name in state_dict if name.removeprefix("module.") not in used]


def family_of_original(
    state_dict: Mapping[str, Any],
    *,
    domain: int = 0,
    name: str = "imagenet12",
    classes: Sequence[str] | None = None,
    mean: RGB = DECATHLON["imagenet12"].mean,
    std: RGB = DECATHLON["imagenet12"].std,
    size: int = 64,
    resize: int = 72,
) -> Family:
    """Return a family whose source domain comes from a state_dict of the original code.

    The family predicts with that domain. Once saved, it can be given to `--config.init_from`: new
    domains start from its filters and norms. The arrays tell width, adapters and class count.

    Args:
      state_dict: as for `import_original`.
      domain: index of the domain that becomes the source domain.
      name: of this domain in the family.
      classes: names in label order; default: "0", "1" and so on.
      mean, std: with which its images were normalised, per channel (RGB), for images scaled to
        [0, 1]; default: ImageNet's.
      size: side of the square that the network saw, in pixels.
      resize: length to which the shorter side of images was resized first, in pixels.

    Raises:
      KeyError: as `import_original`.
      ValueError: as `import_original`; or the arrays make no ResNet-26, the number of names is not
        the head's class count, or `Domain` refuses a value.
    """
    variables = import_original(state_dict, domain)
    facts = {"mean": mean, "std": std, "size": size, "resize": resize}
    return source_family(variables, _spec_of(variables), name, classes, **facts)


def _spec_of(variables: trees.Tree) -> ModelSpec:
    """Return the model spec that imported variables belong to.

    Raises:
      ValueError: they lack the first convolution.
    """
    leaves = trees.flatten(variables)
    if "params/stem/kernel" not in leaves:
        raise ValueError(
            "found no filter of pre_layers_conv; expected the state of a whole network."
        )
    width = leaves["params/stem/kernel"].shape[-1] / ResNet26.stem_channels
    adapted = [path for path in leaves if path.endswith("/adapter/kernel")]
    backbone = ResNet26(width)
    if not adapted:
        return ModelSpec(backbone)
    kind = "series" if any("/adapter/norm/" in path for path in leaves) else "parallel"
    convs = tuple(
        conv
        for position, conv in enumerate(backbone.convs, 1)
        if any(f"/conv{position}/" in path for path in adapted)
    )
    return ModelSpec(backbone, make_options(kind), Placement(convs=convs))
