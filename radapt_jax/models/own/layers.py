"""What a Linen network is made of, found by tracing it once; nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from radapt_jax.adapters.base import NAME
from radapt_jax.models.own import followers
from radapt_jax.models.own.calling import Call
from radapt_jax.models.own.served import geometry_of, input_axes_of
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.norm import NormRule
from radapt_jax.utils import trees

LAYERS = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral, nn.Einsum)
NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm, nn.RMSNorm)
WRAPPERS = (nn.SpectralNorm, nn.WeightNorm)  # what they wrap computes with other values than it has


class Layer(NamedTuple):
    """One convolution or dense layer of a network.

    Args:
      path: of the module.
      kind: name of its class.
      geometry: how its filter moves.
      axes: how many axes of a dense layer's kernel are inputs; 0: it is a convolution.
      refused: why it can carry no adapter; "": it can.
      norm: path of the batch norm that alone takes its output, if there is one.
    """

    path: str
    kind: str
    geometry: Geometry = Geometry()
    axes: int = 0
    refused: str = ""
    norm: str | None = None


class Anatomy(NamedTuple):
    """What a network is made of.

    Args:
      layers: in the order in which they are called.
      norms: paths of all norms.
      rules: of the batch norms that layers name.
      variables: shapes and dtypes by collection and path.
      logits: shape and dtype of what the network returns.
    """

    layers: tuple[Layer, ...]
    norms: tuple[str, ...]
    rules: Mapping[str, NormRule]
    variables: Mapping[str, jax.ShapeDtypeStruct]
    logits: Any


def examine(network: nn.Module, call: Call, size: int) -> Anatomy:
    """Return what a network is made of.

    Args:
      network: any Linen module.
      call: how it is called.
      size: side of the images, in pixels.

    Raises:
      ValueError: layers are inside nn.jit, or variables are in unknown collections.
    """
    seen = _Seen()

    def run(key: jax.Array, images: jax.Array) -> Any:
        return network.init_with_output(key, images, method=lambda own, x: call(own, x, False))

    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    with nn.intercept_methods(seen.watch):
        program, (logits, variables) = jax.make_jaxpr(run, return_shape=True)(
            jax.random.key(0), images
        )
    leaves = trees.flatten(variables)
    _check_leaves(leaves)
    places = followers.places(program.jaxpr)
    _check_jit(places)
    after = followers.pairs(program.jaxpr)
    layers = []
    for layer in seen.layers.values():
        moved = _moved(layer, seen.kernels.get(layer.path), leaves, places)
        norm = after.get(layer.path)
        layers.append(
            layer._replace(
                refused=layer.refused or moved,
                norm=norm if norm in seen.rules else None,
            )
        )
    return Anatomy(tuple(layers), tuple(seen.norms), seen.rules, leaves, logits)


class _Seen:
    """What an interceptor has seen of a network."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.kernels: dict[str, tuple[int, ...]] = {}
        self.norms: dict[str, None] = {}
        self.rules: dict[str, NormRule] = {}
        self._wrapped = 0

    def watch(self, next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
        module = context.module
        if context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        if isinstance(module, WRAPPERS):
            self._wrapped += 1
            try:
                return next_fun(*args, **kwargs)
            finally:
                self._wrapped -= 1
        if not isinstance(module, (*NORMS, *LAYERS)):
            return next_fun(*args, **kwargs)
        path = "/".join(module.path)
        if isinstance(module, NORMS):
            self._note_norm(path, module)
            x, args, kwargs = first(args, kwargs)
            return next_fun(checkpoint_name(x, followers.NORM + path), *args, **kwargs)
        y = next_fun(*args, **kwargs)
        self._note_layer(path, module, first(args, kwargs)[0])
        return checkpoint_name(y, followers.LAYER + path)

    def _note_layer(self, path: str, module: Any, x: Any) -> None:
        found = self._facts(path, module, x)
        if path not in self.layers or found.refused:
            self.layers[path] = found
        kernel = module.get_variable("params", "kernel")
        self.kernels[path] = () if kernel is None else kernel.shape

    def _facts(self, path: str, module: Any, x: Any) -> Layer:
        kind = type(module).__name__
        if _under_head(path):
            why = "it is under 'head', where families keep the classifier"
            return Layer(path, kind, refused=f"{why}; name its module otherwise")
        if self._wrapped:
            return Layer(path, kind, refused="its kernel is normalised by the module around it")
        if not module.is_mutable_collection("adapters"):
            why = "it is inside nn.scan or nn.vmap, which take along no variables of adapters"
            return Layer(path, kind, refused=f"{why}; write the layers out")
        if isinstance(module, nn.Conv | nn.ConvLocal | nn.ConvTranspose):
            geometry = geometry_of(module, x)
            if isinstance(geometry, str):
                return Layer(path, kind, refused=geometry)
            return Layer(path, kind, geometry)
        axes = input_axes_of(module, x)
        if isinstance(axes, str):
            return Layer(path, kind, refused=axes)
        return Layer(path, kind, axes=axes)

    def _note_norm(self, path: str, module: Any) -> None:
        self.norms[path] = None
        plain = isinstance(module, nn.BatchNorm) and module.axis == -1
        if plain and not _under_head(path) and module.use_scale and module.use_bias:
            self.rules[path] = NormRule(module.epsilon, module.momentum, unbiased=False)


def _under_head(path: str) -> bool:
    return path == "head" or path.startswith("head/")


def first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Return the input of a layer's call, and the other arguments."""
    if args:
        return args[0], args[1:], dict(kwargs)
    name = next(name for name in ("inputs", "x") if name in kwargs)
    return kwargs[name], (), {key: it for key, it in kwargs.items() if key != name}


def _check_leaves(leaves: Mapping[str, Any]) -> None:
    if taken := sorted(path for path in leaves if f"/{NAME}/" in path):
        raise ValueError(
            f"found variables {taken[:3]} in the network; expected no module called {NAME!r}, "
            "under which variables of adapters are kept. Name it otherwise."
        )
    found = {path.partition("/")[0] for path in leaves}
    if unknown := sorted(found - {"params", "batch_stats"}):
        raise ValueError(
            f"found variables in the collections {unknown}; expected params and batch_stats "
            "alone. Domains have no place for other state; compute constants where they are used."
        )


def _check_jit(places: Mapping[str, set[str]]) -> None:
    inside = sorted(path for path, around in places.items() if around & {"jit", "pjit"})
    if inside:
        raise ValueError(
            f"found layers inside nn.jit: {inside[:3]}. Leave nn.jit out: training and prediction "
            "compile the whole network, and nn.jit would keep one domain's adapters for all."
        )


def _moved(
    layer: Layer,
    kernel: tuple[int, ...] | None,
    leaves: Mapping[str, Any],
    places: Mapping[str, set[str]],
) -> str:
    """Tell why a layer's variables are not simply its own; "": they are."""
    stored = leaves.get(f"params/{layer.path}/kernel")
    if stored is None or stored.shape != kernel:
        return "its kernel is stacked with those of other layers; write the layers out"
    if around := sorted(places.get(layer.path, set()) - followers.TRANSPARENT):
        return f"it is inside {', '.join(around)}; call it outside"
    return ""
