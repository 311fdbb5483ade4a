"""Our training and inference steps, driven by benchmarks/train.py and benchmarks/start.py.

A process of its own, as the peer's is: requests come as JSON lines on stdin, answers go as JSON
lines to stdout.

    {"do": "setup", ...}    build a network and a batch; save the weights, for the peer
    {"do": "logits", "train": false}    what it says of the images
    {"do": "run", "n": 3}   seconds of each of n training or inference steps
    {"do": "peak"}          bytes: of device memory on a GPU, else of this process
"""

import jax
import jax.numpy as jnp
import machine
import numpy as np
import rows
import worker

from radapt_jax import ModelSpec, ResNet26, initial_variables
from radapt_jax.adapters import make_options
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.domain import Domain
from radapt_jax.family.features import features, through_head
from radapt_jax.models.fold import fold, folded_spec
from radapt_jax.train import optim
from radapt_jax.train.compiled import make_head_step, make_train_step
from radapt_jax.train.step import TrainState
from radapt_jax.utils import trees
from radapt_jax.utils.memory import keep_freed_memory


def begun(spec, variables, decay):
    """Return labels, optimiser and state of a training, and the device that it is on."""
    names = optim.labels({key: variables[key] for key in ("params", "adapters")}, decay, spec.kind)
    optimizer = optim.make_optimizer(names, decay, 1e-4)
    devices = jax.devices()[:1]
    return names, optimizer, TrainState.create(variables, optimizer, devices), devices


def training(spec, variables, decay, images, labels, classes, dtype):
    """Return a function that takes one training step and waits for it."""
    names, optimizer, state, devices = begun(spec, variables, decay)
    facts, size = DECATHLON["cifar100"], images.shape[1]
    domain = Domain("noise", tuple(map(str, range(classes))), facts.mean, facts.std, size=size)
    step = make_train_step(spec, domain, optimizer, names, devices=devices, dtype=dtype)
    flips = np.zeros((1, len(images)), bool)
    fed = {"image": images[None], "label": labels[None], "flip": flips}

    def run():
        nonlocal state
        state, measured = step(state, fed, None)
        jax.block_until_ready((state, measured))

    return run


def on_features(spec, variables, decay, images, labels, classes, dtype):
    """Return a function that trains a head for so many epochs on one batch, and waits for it."""
    names, optimizer, state, devices = begun(spec, variables, decay)
    step = make_head_step(optimizer, names, devices=devices)
    own = jax.device_put(through_head(variables))
    model = spec.build(own["adapters"]["head"]["kernel"].shape[0], dtype=dtype)
    facts = DECATHLON["cifar100"]

    def run():
        nonlocal state
        kept = [
            np.asarray(features(model, own, images, np.array(facts.mean), np.array(facts.std)))
            for _ in range(rows.VIEWS)
        ]
        for epoch in range(rows.EPOCHS):
            fed = {"features": kept[epoch % rows.VIEWS][None], "label": labels[None]}
            state, measured = step(state, fed)
        jax.block_until_ready((state, measured))

    return run


def inferring(spec, variables, folded, images, classes, dtype):
    """Return a function that runs the network once and waits for it."""
    if folded:
        spec, variables = folded_spec(spec), fold(spec, variables)
    variables = jax.tree.map(jnp.asarray, variables)
    model = spec.build(classes, dtype=dtype)
    apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    pixels = jnp.asarray(images, jnp.float32) / 255
    return lambda: apply(variables, pixels).block_until_ready()


class Ours:
    def setup(
        self, images, labels, kind, decay, folded, width, classes, dtype, weights, kept=False
    ):
        self.images, labels = np.load(images), np.load(labels)
        spec = ModelSpec(ResNet26(width), make_options(kind, init="he_normal"))
        self.model, dtype = spec.build(classes), jnp.dtype(dtype)
        self.variables = initial_variables(spec, classes, seed=0)
        np.savez(weights, **trees.flatten(self.variables))
        self.steps = rows.EPOCHS if kept else 1  # that `self.step` takes
        if kept:
            self.step = on_features(
                spec, self.variables, decay, self.images, labels, classes, dtype
            )
        elif decay is None:
            self.step = inferring(spec, self.variables, folded, self.images, classes, dtype)
        else:
            self.step = training(spec, self.variables, decay, self.images, labels, classes, dtype)
        return machine.facts()

    def logits(self, train):
        pixels = jnp.asarray(self.images, jnp.float32) / 255
        with jax.default_matmul_precision("highest"):
            found, _ = self.model.apply(
                self.variables, pixels, train=train, mutable=["batch_stats"]
            )
        return {"logits": found.tolist()}

    def run(self, n, warm=0.0):
        return {"seconds": [it / self.steps for it in worker.seconds(self.step, n, warm)]}

    def peak(self):
        on_device = jax.devices()[0].memory_stats() or {}
        return {"bytes": on_device.get("peak_bytes_in_use") or worker.resident_peak()}


if __name__ == "__main__":
    keep_freed_memory()  # as train.py does
    worker.answer(Ours())
