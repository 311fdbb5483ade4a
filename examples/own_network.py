"""A plain Linen network, trained as one trains those, learns two more domains with adapters.

python examples/own_network.py
"""

import sys
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import radapt_jax as rj
from radapt_jax.data.images import preprocess
from radapt_jax.data.sources.embedded import open_embedded


class Block(nn.Module):
    features: int
    stride: int
    norm: Any

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.features, (3, 3), (self.stride, self.stride), use_bias=False)(x)
        y = nn.Conv(self.features, (3, 3), use_bias=False)(nn.relu(self.norm()(y)))
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), (self.stride, self.stride), name="shortcut")(x)
        return nn.relu(x + self.norm()(y))


class ResNet(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train=True):
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = nn.relu(norm(name="stem_norm")(nn.Conv(16, (3, 3), use_bias=False, name="stem")(x)))
        for features, stride in ((16, 1), (32, 2), (64, 2)):
            x = nn.remat(Block)(features, stride, norm, name=f"block{features}")(x)
        return nn.Dense(self.num_classes, name="classifier")(x.mean((1, 2)))


def examples(name, split):
    """Images and labels of a small real domain that ships inside a package."""
    found = list(open_embedded(name).splits[split]())
    return [it.image for it in found], np.array([it.label for it in found])


def pretrained(images, labels, steps):
    """Variables of the network, trained on these images, with nothing of this library."""
    network, optimizer = ResNet(labels.max() + 1), optax.adam(3e-3)
    variables = network.init(jax.random.key(0), images[:1], train=False)
    params, stats = variables["params"], variables["batch_stats"]

    def loss_of(params, stats, x, y):
        now = {"params": params, "batch_stats": stats}
        logits, changed = network.apply(now, x, train=True, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss, changed["batch_stats"]

    @jax.jit
    def step(params, stats, state, x, y):
        grads, stats = jax.grad(loss_of, has_aux=True)(params, stats, x, y)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), stats, state

    state, stream = optimizer.init(params), np.random.default_rng(0)
    for rows in stream.integers(0, len(images), (steps, 64)):
        params, stats, state = step(params, stats, state, images[rows], labels[rows])
    return {"params": params, "batch_stats": stats}


def main(steps):
    classes = tuple("0123456789")
    digits = rj.Domain("digits", classes, (0.5,) * 3, (0.5,) * 3, size=16, resize=16)
    images, labels = examples("digits", "train")
    weights = pretrained(np.float32(preprocess(images, digits)) / 127.5 - 1, labels, steps)

    backbone = rj.adapt(ResNet(10), size=16)
    facts = {"mean": digits.mean, "std": digits.std, "size": 16, "resize": 16}
    family = rj.family_of_network(backbone, weights, "digits", classes, **facts)
    options = rj.TrainOptions(steps=steps, batch_size=32, learning_rate=0.1)
    for name in ("surfaces", "faces"):
        rj.fit(family, name, *examples(name, "train"), options=options, progress=False)
    for name in family:
        found = rj.evaluate(family, name, *examples(name, "test"))
        print(f"{name}: top-1 {found.top1:.1f} %, ratio {family.ratio(name):.2f}")

    tests = family.preprocess(examples("surfaces", "test")[0], domain="surfaces")
    plain = backbone.plain_variables(family.fold("surfaces").weights.variables)
    surfaces = family["surfaces"].domain
    normalised = (tests / 255 - np.array(surfaces.mean)) / np.array(surfaces.std)
    logits = ResNet(3).apply(plain, normalised.astype(np.float32), train=False)
    same = np.abs(jax.nn.softmax(logits) - family.predict(tests, domain="surfaces")).max()
    print(f"folded, the network itself predicts surfaces: probabilities differ by {same:.0e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
