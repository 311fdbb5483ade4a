"""Which Linen layers can carry adapters, and what filters they are."""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from radapt_jax.nn.geometry import Geometry

OF_ITS_OWN = "it has a class of its own, which may compute with another filter than its kernel"


def geometry_of(module: Any, x: Any) -> Geometry | str:
    """Return how the filter of a convolution moves, or why it can carry no adapter."""
    if isinstance(module, nn.ConvTranspose):
        return "it is transposed; adapt the convolutions around it"
    if isinstance(module, nn.ConvLocal):
        return "it shares no filter between pixels"
    if type(module) is not nn.Conv:
        return OF_ITS_OWN
    sizes = _pair(module.kernel_size, 0)
    strides, dilations, spread = (
        _pair(it, 2) for it in (module.strides, module.kernel_dilation, module.input_dilation)
    )
    if x.ndim != 4 or len(sizes) != 2:
        return f"its input has {x.ndim} dimensions; images have 4, (b, h, w, c)"
    if len(set(sizes)) > 1 or len(set(strides)) > 1 or len(set(dilations)) > 1:
        return "its filter is not square, or moves differently along both sides"
    if set(spread) != {1}:
        return "its input is dilated"
    if reason := _unusual(module, "mask", "conv_general_dilated", "conv_general_dilated_cls"):
        return reason
    reach = (sizes[0] - 1) * dilations[0] + 1
    padding = _padding(module.padding, sizes[0] // 2 * dilations[0])
    if padding is None:
        return f"its padding is {module.padding!r}; expected SAME, VALID, or zeros on every side"
    if padding == reach // 2 or (padding == "same" and strides[0] == 1 and reach % 2):
        padding = "half"
    return Geometry(strides[0], padding, dilations[0], module.feature_group_count)


def input_axes_of(module: Any, x: Any) -> int | str:
    """Return how many axes of its kernel a dense layer sums over, or why it takes no adapter."""
    if type(module) is nn.Dense:
        axes = 1
    elif type(module) is nn.DenseGeneral:
        axis = (module.axis,) if isinstance(module.axis, int) else tuple(module.axis)
        axes = len(axis)
        last = tuple(range(x.ndim - axes, x.ndim))
        if module.batch_dims or tuple(it % x.ndim for it in axis) != last:
            return "it does not sum over the last axes alone; write it with nn.Dense"
    else:
        return OF_ITS_OWN
    if x.ndim <= axes:
        return "its input has no batch"
    return _unusual(module, "dot_general", "dot_general_cls") or axes


def _unusual(module: Any, *fields: str) -> str:
    """Tell which field makes a layer compute in a way of its own; "": none."""
    own = [name for name in (*fields, "precision") if getattr(module, name, None) is not None]
    if getattr(module, "promote_dtype", promote_dtype) is not promote_dtype:
        own.append("promote_dtype")
    return f"it sets {', '.join(own)}; leave that out" if own else ""


def _padding(found: Any, middle: int) -> str | int | None:
    """Return padding as `Geometry` knows it; None: it has none like it."""
    if isinstance(found, str):
        return found.lower() if found.upper() in ("SAME", "VALID") else None
    sides = [found] if isinstance(found, int) else list(found)
    pads = {pad for side in sides for pad in ([side] if isinstance(side, int) else side)}
    (pad, *others) = pads
    return pad if not others and 0 <= pad <= middle else None


def _pair(found: Any, rank: int) -> tuple[int, ...]:
    """Return one number for each side; Linen takes a number, several or None (1)."""
    if found is None or isinstance(found, int):
        return (1 if found is None else found,) * max(rank, 1)
    return tuple(found)
