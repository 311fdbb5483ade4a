"""ResNets by torchvision's and timm's names: states at random, and the network in NumPy."""

import zlib

import numpy as np

NORM = ("weight", "bias", "running_mean", "running_var")


def shapes(blocks, bottleneck, *, stem=8, classes=5, small=False):
    """Return the shape of every tensor by its name; `stem`: its channels."""
    side = 3 if small else 7
    convs = {"conv1": (stem, 3, side, side)}
    norms = {"bn1": stem}
    inputs = stem
    for stage, count in enumerate(blocks):
        inner = stem * 2**stage
        outputs = inner * 4 if bottleneck else inner
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            if bottleneck:
                sizes = [(inner, inputs, 1), (inner, inner, 3), (outputs, inner, 1)]
            else:
                sizes = [(inner, inputs, 3), (inner, inner, 3)]
            for index, (d, c, k) in enumerate(sizes, 1):
                convs[f"{name}.conv{index}"], norms[f"{name}.bn{index}"] = (d, c, k, k), d
            if block == 0 and (stage > 0 or inputs != outputs):
                convs[f"{name}.downsample.0"] = (outputs, inputs, 1, 1)
                norms[f"{name}.downsample.1"] = outputs
            inputs = outputs
    found = {f"{name}.weight": shape for name, shape in convs.items()}
    found |= {f"{name}.{leaf}": (c,) for name, c in norms.items() for leaf in NORM}
    found |= {f"{name}.num_batches_tracked": () for name in norms}
    return found | {"fc.weight": (classes, inputs), "fc.bias": (classes,)}


def state_of(blocks, bottleneck, **options):
    """Return a state_dict at random; every tensor has a stream of its own."""

    def draw(name, shape):
        stream = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            return np.array(7)
        if len(shape) > 1:
            bound = np.sqrt(6 / np.prod(shape[1:]))
            return stream.uniform(-bound, bound, shape).astype(np.float32)
        near = 0.5 if name.endswith(("running_var", "weight")) else -0.3
        return (near + 0.6 * stream.uniform(0, 1, shape)).astype(np.float32)

    found = shapes(blocks, bottleneck, **options)
    return {name: draw(name, shape) for name, shape in found.items()}


def logits(state, x):
    """The network's logits for images (b, c, h, w): no code of ours."""

    def windows(x, size, stride, fill):
        pads = ((0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2))
        padded = np.pad(x, pads, constant_values=fill)
        found = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
        return found[:, :, ::stride, ::stride]

    def layer(x, conv, norm, stride=1):
        kernel = state[f"{conv}.weight"]
        y = windows(x, kernel.shape[2], stride, 0.0)
        y = np.einsum("bchwij,dcij->bdhw", y, kernel, optimize=True)
        scale, bias, mean, var = (state[f"{norm}.{leaf}"][:, None, None] for leaf in NORM)
        return (y - mean) / np.sqrt(var + 1e-5) * scale + bias

    def block(x, name, stride):
        convs = sum(f"{name}.conv{index}.weight" in state for index in (1, 2, 3))
        strides = (1, stride, 1) if convs == 3 else (stride, 1)
        y = x
        for index, step in enumerate(strides, 1):
            y = y if index == 1 else np.maximum(y, 0)
            y = layer(y, f"{name}.conv{index}", f"{name}.bn{index}", step)
        if f"{name}.downsample.0.weight" in state:
            x = layer(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return np.maximum(x + y, 0)

    small = state["conv1.weight"].shape[2] == 3
    x = np.maximum(layer(x, "conv1", "bn1", 1 if small else 2), 0)
    if not small:
        x = windows(x, 3, 2, -np.inf).max((4, 5))
    blocks = sorted({tuple(name.split(".")[:2]) for name in state if name.startswith("layer")})
    for stage, index in sorted((stage, int(index)) for stage, index in blocks):
        x = block(x, f"{stage}.{index}", 2 if stage != "layer1" and index == 0 else 1)
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
