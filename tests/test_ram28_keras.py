"""ResNet28-RAM against reference values of Keras: logits, statistics, gradients and a step."""

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED
from test_ram28 import VARIANTS, decay_of, evaluated, network, recipe

from radapt_jax.nn.losses import cross_entropy
from radapt_jax.train import optim
from radapt_jax.train.step import TrainState, update
from radapt_jax.utils import trees

KERAS = SHARED / "parity" / "keras"
LEAVES = {"gamma": "scale", "beta": "bias", "variance": "var"}
OF_LAYER = {
    "Conv2D": ("kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
FULL = {"a": 32, "b": 4}  # the width of their own that Keras's networks have at our width 1
CLOSE = {"atol": 1e-4, "rtol": 0}
pytestmark = pytest.mark.skipif(not KERAS.is_dir(), reason="the Keras reference is not here")


def path_of(tensor):
    """Return our path, collection apart, for a name such as stage1.block0.conv1.adapter.bn/beta."""
    layer, leaf = tensor.split("/")
    leaf = leaf.removeprefix("moving_")
    layer = re.sub(r"block(\d)", lambda found: f"block{int(found[1]) + 1}", layer)
    layer = re.sub(r"^stem\.conv", "stem", layer).replace(".adapter.conv", ".adapter")
    layer = re.sub(r"^(stem|stage\d)\.bn$", r"\1_norm", layer).replace("final.bn", "stage3_norm")
    return f"{layer.replace('.bn', '.norm').replace('.', '/')}/{LEAVES.get(leaf, leaf)}"


class Reference:
    """A file of reference values, with its network, variables and images."""

    def __init__(self, name):
        with np.load(KERAS / f"{name}.npz") as file:
            self.file = dict(file)
        self.meta = meta = json.loads(str(self.file["meta"]))
        self.spec = network(meta["kind"], meta["width"] / FULL[meta["kind"]], meta["N"])
        self.model = self.spec.build(meta["classes"])
        self.abstract = trees.flatten(self.spec.abstract(meta["classes"]))
        self._paths = {path.partition("/")[2]: path for path in self.abstract}
        if "images" in self.file:
            leaves, self.images = self.part("w"), self.file["images"].astype(np.float32)
        else:
            leaves, self.images = self._drawn()
        assert leaves.keys() == self.abstract.keys()
        self.variables = trees.unflatten(leaves)

    def part(self, start):
        """Return the values whose names start so, by our paths and in our shapes."""
        return {
            path: self._ours(path, values)
            for name, values in self.file.items()
            if name.startswith(f"{start}/") and name.count("/") == 2
            for path in [self.path(name)]
        }

    def path(self, name):
        """Return our path of a tensor, which is called by its part of the file and its layer."""
        return self._paths[path_of(name.partition("/")[2])]

    def _ours(self, path, values):
        """Return values in our shape: α is a matrix here, and a 1x1 filter there."""
        return values.astype(np.float32).reshape(self.abstract[path].shape)

    def _drawn(self):
        """Return the variables and images that are told by their seed."""
        spec = importlib.util.spec_from_file_location("keras_reference", KERAS / "recipe.py")
        given = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(given)
        seed, leaves = self.meta["seed"], self.part("stats")
        for layer in self.meta["layers"]:
            for leaf in OF_LAYER[layer["type"]]:
                tensor = f"{layer['role']}/{leaf}"
                path = self._paths.get(path_of(tensor))
                if path is not None and path not in leaves:
                    shape = (layer["output"][-1],)
                    if leaf == "kernel":
                        shape = (*layer.get("kernel", ()), layer["input"][-1], *shape)
                    leaves[path] = self._ours(path, given.fill(seed, tensor, shape))
        return leaves, given.images(seed, self.meta["batch"], self.meta["size"])


@pytest.fixture(scope="module", params=VARIANTS)
def reference(request):
    return Reference(f"keras_{request.param}_dev")


def trained_on(reference):
    """Return logits, changed statistics and gradients of one batch, everything trained."""
    variables, labels = reference.variables, reference.file["labels"]

    def loss_of(weights):
        logits, changed = reference.model.apply(
            {**weights, "batch_stats": variables["batch_stats"]},
            reference.images,
            train=True,
            mutable=["batch_stats"],
        )
        return cross_entropy(logits, labels).mean(), (logits, changed)

    weights = {key: variables[key] for key in ("params", "adapters")}
    return jax.jit(jax.value_and_grad(loss_of, has_aux=True))(weights)


def test_evaluation(reference):
    logits = evaluated(reference.model, reference.variables, reference.images)
    np.testing.assert_allclose(logits, reference.file["eval/logits"], **CLOSE)
    np.testing.assert_allclose(jax.nn.softmax(logits), reference.file["eval/probs"], **CLOSE)


def test_a_batch_and_its_gradients(reference):
    """Logits, statistics of the batch (biased) and the gradient of every variable."""
    (loss, (logits, changed)), gradients = trained_on(reference)
    np.testing.assert_allclose(loss, reference.file["train/ce"], **CLOSE)
    np.testing.assert_allclose(logits, reference.file["train/logits"], **CLOSE)
    before, after = trees.flatten(reference.variables), trees.flatten(changed)
    keep = reference.spec.backbone.norm.momentum
    statistics = reference.part("batch")
    assert statistics.keys() == after.keys()
    for path, batch in statistics.items():
        moved = keep * before[path] + (1 - keep) * batch
        np.testing.assert_allclose(after[path], moved, err_msg=path, **CLOSE)
    gradients = trees.flatten(gradients)
    known = reference.part("grad")
    for name, values in reference.file.items():
        part = name.partition("/")[0]
        if part in ("gradslice", "gradnorm"):  # of what is too large for the file
            path = reference.path(name)
            found = gradients[path]
            seen = found[:, :, :8, :8] if part == "gradslice" else np.linalg.norm(found)
            np.testing.assert_allclose(seen, values, err_msg=path, **CLOSE)
            known[path] = found
    assert known.keys() == gradients.keys()
    for path, gradient in known.items():
        np.testing.assert_allclose(gradients[path], gradient, err_msg=path, **CLOSE)


def test_one_step_of_a_domain(reference):
    """Of the recipe, but for the momentum: what the domain has moves, and filters stay."""
    variant, variables = reference.meta["kind"], reference.variables
    decay = decay_of(recipe(variant))
    weights = {key: variables[key] for key in ("params", "adapters")}
    labels = optim.labels(weights, decay, reference.spec.kind)
    optimizer = optim.make_optimizer(labels, decay, 0.1, momentum=0.0)
    step = jax.jit(
        lambda state: update(
            reference.model,
            optimizer,
            labels,
            state,
            reference.images,
            jnp.asarray(reference.file["labels"]),
            key=jax.random.key(0),
        )
    )
    state, measured = step(TrainState.on_host(variables, optimizer))
    found = trees.flatten(state.variables)
    expected = reference.part("step_domain")
    before = trees.flatten(variables)
    assert expected.keys() == {path for path in before if not path.startswith("params/")}
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, expected.get(path, before[path]), err_msg=path, **CLOSE)
    kernels = [it for path, it in before.items() if path.endswith("kernel") and "head" not in path]
    penalty = (2e-4 if variant == "a" else 0.0) * sum(np.square(it).sum() for it in kernels)
    np.testing.assert_allclose(measured["loss"] + penalty, reference.file["step_all/loss"], **CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_at_full_size(variant):
    reference = Reference(f"keras_{variant}_full_dev")
    logits = evaluated(reference.model, reference.variables, reference.images)
    np.testing.assert_allclose(logits, reference.file["eval/logits"], **CLOSE)
