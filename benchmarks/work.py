"""The least work of each row: multiply-adds and bytes, from the network's shapes.

Convolutions alone are counted, as direct ones (Winograd's takes fewer); norms, the head and the
optimiser's arithmetic are below a hundredth. Trained adapters are counted folded into the filter,
the formulation of fewest multiplications; in bfloat16 ours applies them apart.

Bytes are a lower bound: the output of every convolution is written once and read once in the
forward pass; its gradient the same in the backward pass, which also reads the output again. Norms,
rectifiers and shortcuts are taken as part of what comes before them. Filters are read once in each
pass; what is trained is written, and its momentum read and written.
"""

from typing import NamedTuple

from radapt_jax import ModelSpec, ResNet26
from radapt_jax.utils import trees


class Conv(NamedTuple):
    pixels: int  # of the output
    inputs: int  # channels
    outputs: int


def convolutions(width, size):
    """Return the convolutions of ResNet-26, the stem first; each stage halves the image."""
    kernels = trees.flatten(ModelSpec(ResNet26(width)).abstract(1)["params"])
    convs = {}
    for path, kernel in kernels.items():
        stage = 0 if path.startswith("stem") else int(path.removeprefix("stage")[0])
        convs[stage, path] = Conv((size >> stage) ** 2, *kernel.shape[2:])
    return [convs[place] for place in sorted(convs)]


def multiply_adds(width, size):
    """Return the multiply-adds of an image, by row."""
    convs = convolutions(width, size)
    forward = sum(9 * conv.pixels * conv.inputs * conv.outputs for conv in convs)
    stem = 9 * convs[0].pixels * convs[0].inputs * convs[0].outputs
    backward = forward - stem  # gradients of inputs: the images need none
    parallel, series = (sum(products) for products in zip(*map(_adapters, convs), strict=True))
    return {
        "infer backbone": forward,
        "infer parallel, unfolded": forward + parallel,
        "infer parallel, folded": forward,
        "train linear": forward,
        "train norm": forward + backward,
        "train parallel": forward + backward + parallel,
        "train parallel, unfolded": (forward + backward) * 10 // 9 + parallel,
        "train series": forward + backward + 3 * series,
        "train finetune": forward + backward + forward,
        "train scratch": forward + backward + forward,
    }


def _adapters(conv):
    """Return the multiply-adds of a convolution's parallel and series adapter, forward."""
    return conv.pixels * conv.inputs * conv.outputs, conv.pixels * conv.outputs**2


def bytes_moved(width, size, batch, itemsize):
    """Return the least bytes of an image to and from memory, by row.

    Weights are float32 and shared by the batch; activations take `itemsize` bytes each.
    """
    convs = convolutions(width, size)
    outputs = itemsize * sum(conv.pixels * conv.outputs for conv in convs)
    filters = 4 * sum(9 * conv.inputs * conv.outputs for conv in convs) / batch
    parallel = 4 * sum(conv.inputs * conv.outputs for conv in convs) / batch
    series = 4 * sum(conv.outputs**2 for conv in convs) / batch
    forward, both = 2 * outputs + filters, 5 * outputs + 2 * filters
    return {
        "infer backbone": forward,
        "infer parallel, unfolded": forward + parallel,
        "infer parallel, folded": forward,
        "train linear": forward,
        "train norm": both,
        "train parallel": both + 5 * parallel,
        "train series": both + 5 * outputs + 5 * series,  # what the norm inside reads, too
        "train finetune": both + 3 * filters,
        "train scratch": both + 3 * filters,
    }
