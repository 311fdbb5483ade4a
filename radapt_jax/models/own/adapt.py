"""A Linen network of one's own, unchanged, as a backbone."""

from __future__ import annotations

from flax import linen as nn

from radapt_jax.models.own.backbone import OwnNetwork
from radapt_jax.models.own.calling import Call, usual_call
from radapt_jax.models.own.choose import Where, chosen_layers, classifier_of
from radapt_jax.models.own.layers import examine
from radapt_jax.models.registry import BACKBONES
from radapt_jax.utils.checks import check, whole


def adapt(
    network: nn.Module,
    where: Where = None,
    *,
    head: str | None = None,
    name: str | None = None,
    size: int = 224,
    call: Call | None = None,
) -> OwnNetwork:
    """Return a network of your own as a backbone; nothing in it has to change.

    Adapters are put beside its convolutions and dense layers from outside
    (`flax.linen.intercept_methods`), the scale and bias of its norms (BatchNorm, LayerNorm,
    GroupNorm, InstanceNorm, RMSNorm) and its classifier become each domain's own, and everything
    else is shared. Variables keep their paths.

    Args:
      network: a Linen module that maps images (b, h, w, 3) to logits, with variables in `params`
        and `batch_stats` alone.
      where: layers that can carry adapters (`Placement(convs=...)` chooses among them): a pattern
        of paths such as `stage3/*`, a compiled regular expression, several of them, or a function
        from a path to a bool. Default: every nn.Conv that can be served.
      head: path of the classifier, an nn.Dense; default: the last that is called.
      name: under which it is saved; default: that of its class, in small letters.
      size: side of images, in pixels, at which it can be called; where the shapes of variables
        depend on it, the size of all images.
      call: how the network is called, as `call(module, images, train)`; default: as its signature
        says, which may have `train`, `training`, `deterministic` and the like, or none of them.

    Raises:
      ValueError: nothing can be adapted, a layer that `where` matches cannot (the message says
        why), there is no such classifier, or the network is not of this kind.
    """
    name = type(network).__name__.lower() if name is None else name
    if name in BACKBONES:
        raise ValueError(f"found name {name!r}, of a backbone of this library; choose another.")
    check("size", size, whole(1))
    call = call or usual_call(network)
    anatomy = examine(network, call, size)
    classifier = classifier_of(anatomy, head)
    layers = chosen_layers(anatomy, where, classifier)
    return OwnNetwork(name, network, call, size, classifier, layers, anatomy)
