"""How a Linen network is told whether it is being trained."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn

Call = Callable[[Any, Any, bool], Any]  # call(module, images, train) -> logits
IN_TRAINING = ("train", "training", "is_training")
AT_EVALUATION = ("deterministic", "use_running_average", "eval", "eval_mode", "inference")


@dataclasses.dataclass(frozen=True)
class UsualCall:
    """A call with the images first and flags by name.

    Args:
      training: names of flags that say that the network is being trained.
      evaluation: names of flags that say that it is not.
    """

    training: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()

    def __call__(self, module: Any, images: Any, train: bool) -> Any:
        flags = {**dict.fromkeys(self.training, train), **dict.fromkeys(self.evaluation, not train)}
        return module(images, **flags)


def usual_call(network: nn.Module) -> UsualCall:
    """Return the call that follows from the signature of a network.

    Raises:
      ValueError: it has arguments, without defaults, of which nothing is known.
    """
    _, *arguments = inspect.signature(type(network).__call__).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    flags = {it.name: it for it in arguments[1:] if it.kind in named}
    known = (*IN_TRAINING, *AT_EVALUATION)
    unknown = [
        name
        for name, it in flags.items()
        if it.default is inspect.Parameter.empty and name not in known
    ]
    if not arguments or unknown:
        raise ValueError(
            f"found {type(network).__name__}.__call__ with arguments "
            f"{[it.name for it in arguments]}; expected images, and flags among {list(known)}. "
            "Say how it is called: adapt(..., call=lambda module, images, train: ...)."
        )
    return UsualCall(
        tuple(name for name in IN_TRAINING if name in flags),
        tuple(name for name in AT_EVALUATION if name in flags),
    )
