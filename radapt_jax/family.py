"""The user's object: shared weights plus a bank of domains."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from radapt_jax import checkpoint, trees
from radapt_jax.checkpoint import Shared
from radapt_jax.data.augment import normalise
from radapt_jax.data.images import centre_crop, decode
from radapt_jax.member import Member
from radapt_jax.models import ModelSpec


@functools.partial(jax.jit, static_argnames="model")
def _probabilities(model: Any, variables: Any, images: Array, mean: Array, std: Array) -> Array:
    """Compiled once per network, batch shape and image dtype; domains are data."""
    if images.dtype == jnp.uint8:
        images = normalise(images, mean, std)
    return jax.nn.softmax(model.apply(variables, images, train=False))


class Family:
    """Shared weights and the domains that were trained on them.

        family = Family.load("runs/quickstart")
        images = family.preprocess(["a.png", "b.png"], domain="digits")
        family.predict(images, domain="digits")     # (2, 10) probabilities

    Args:
      shared: the shared weights; see `load` for reading them from a workdir.
      members: domains to start with.
    """

    def __init__(self, shared: Shared, members: Iterable[Member] = ()) -> None:
        spec = ModelSpec(backbone=shared.backbone, width=shared.width)
        trees.check_like(shared.params, spec.abstract(1)["params"], "the shared weights")
        self.shared = shared
        self.fingerprint = trees.fingerprint(shared.params)
        self._params = jax.tree.map(jnp.asarray, shared.params)
        self._members: dict[str, Member] = {}
        self._bank: dict[str, dict[str, Any]] = {}
        for member in members:
            self.add(member.domain.name, member)

    @classmethod
    def load(cls, workdir: str | Path, domains: Sequence[str] | None = None) -> Family:
        """Read the shared weights and all domains (or those named) of a workdir.

        Raises:
          FileNotFoundError: no shared weights there, or no such domain.
          ValueError: a checkpoint is damaged, or does not fit its own description.
        """
        names = checkpoint.list_members(workdir) if domains is None else domains
        shared = checkpoint.load_shared(workdir)
        return cls(shared, (checkpoint.load_member(workdir, name) for name in names))

    def save(self, path: str | Path) -> None:
        """Write the shared weights and every domain under `path`, to be read by `load`."""
        checkpoint.save_shared(self.shared, path)
        for member in self._members.values():
            checkpoint.save_member(member, path)

    @property
    def domains(self) -> list[str]:
        """Names of the domains: the source that w was pre-trained on, then the others, sorted."""
        return sorted(self._members, key=lambda name: (name != self.shared.source, name))

    def __getitem__(self, domain: str) -> Member:
        """Return what the family holds of one domain.

        Raises:
          KeyError: there is no such domain; the message lists those there are.
        """
        if domain not in self._members:
            raise KeyError(f"found no domain {domain!r} in this family; it has {self.domains}.")
        return self._members[domain]

    def __contains__(self, domain: object) -> bool:
        return domain in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self.domains)

    def __len__(self) -> int:
        return len(self._members)

    def variables(self, domain: str) -> dict[str, Any]:
        """Return `params`, `adapters` and `batch_stats` of one domain, for `model.apply`.

        `params` are the shared arrays themselves, unless the domain has weights of its own.
        """
        self[domain]
        return {"params": self._params, **self._bank[domain]}

    def model(self, domain: str, **runtime: Any) -> Any:
        """Return the network that `variables(domain)` belong to; `runtime` may hold dtype."""
        member = self[domain]
        return member.spec.build(member.domain.num_classes, **runtime)

    def add(self, name: str, domain: Member) -> None:
        """Add a domain under a name, or replace the one of that name.

        Args:
          name: how it is called from now on.
          domain: for instance `other_family["svhn"]`, or a `Member` made by hand.

        Raises:
          ValueError: it was trained on other shared weights, on another width, or its variables
            have other shapes than its class count and adapter kind need. Nothing is changed then.
        """
        self._check_fits(name, domain)
        member = dataclasses.replace(
            domain,
            domain=dataclasses.replace(domain.domain, name=name),
            shared=None if domain.has_own_weights else self.fingerprint,
        )
        member.check()
        self._bank[name] = jax.tree.map(jnp.asarray, dict(member.variables))
        self._members[name] = member

    def _check_fits(self, name: str, member: Member) -> None:
        if member.spec.backbone != self.shared.backbone or member.spec.width != self.shared.width:
            raise ValueError(
                f"domain {name!r} belongs to another network.\n"
                f"  this family:  {self.shared.backbone}, width {self.shared.width}\n"
                f"  the domain:   {member.spec.backbone}, width {member.spec.width}\n"
                "Load the family it was trained with, or retrain it on this one."
            )
        if not member.has_own_weights and member.shared not in (None, self.fingerprint):
            raise ValueError(
                f"domain {name!r} was trained on other shared weights.\n"
                f"  this family:  sha256 {self.fingerprint[:12]}...\n"
                f"  the domain:   sha256 {member.shared[:12]}... "
                f"({member.spec.backbone}, width {member.spec.width})\n"
                "Load the family it was trained with, or retrain it: python train.py --config "
                f"configs/parallel.py --config.domains={name} --config.init_from=<this family>"
            )

    def predict(self, images: Any, *, domain: str) -> np.ndarray:
        """Return class probabilities, float32 (n, classes), for a batch of one domain.

        Compiled once per batch shape; domains of equal class count and adapter kind share it.

        Args:
          images: (n, h, w, 3) at the size the network is to see, sides multiples of 8. uint8 in
            [0, 255] is normalised with the domain's mean and std; floats are taken as normalised.
          domain: whose adapters, norms and head to use.

        Raises:
          KeyError: no such domain.
          ValueError: another rank, channel count, dtype or side, or values that are not finite.
        """
        member = self[domain]
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"found images of shape {images.shape}; expected (n, height, width, 3). One image "
                "needs a leading axis: image[None]; files go through family.preprocess."
            )
        if images.dtype != np.uint8:
            if not np.issubdtype(images.dtype, np.floating):
                raise ValueError(
                    f"found images of {images.dtype}; expected uint8 in [0, 255], or floats that "
                    "are normalised already."
                )
            images = images.astype(np.float32)
            if not np.isfinite(images).all():
                raise ValueError("found images with NaN or infinite values; expected finite ones.")
        if len(images) == 0:
            return np.zeros((0, member.domain.num_classes), np.float32)
        mean, std = (
            np.array(values, np.float32) for values in (member.domain.mean, member.domain.std)
        )
        variables = self.variables(domain)
        return np.asarray(_probabilities(self.model(domain), variables, images, mean, std))

    def preprocess(self, images: Any, *, domain: str) -> np.ndarray:
        """Return images as `predict` takes them: uint8 (n, size, size, 3).

        Resized and cropped as at this domain's evaluation.

        Args:
          images: one or a sequence of paths, PIL images or uint8 arrays (h, w) or (h, w, 3).
          domain: whose resizing and crop to use.

        Raises:
          KeyError: no such domain.
          ValueError: something that cannot be read as an image.
        """
        facts = self[domain].domain
        several = isinstance(images, Sequence) and not isinstance(images, str | bytes)
        if isinstance(images, np.ndarray):
            several = images.ndim == 4
        cut = [
            centre_crop(decode(image, facts.resize, facts.squash), facts.size)
            for image in (images if several else [images])
        ]
        return np.stack(cut) if cut else np.zeros((0, facts.size, facts.size, 3), np.uint8)

    def backbone_parameters(self) -> int:
        """Return the parameters of the network without adapters, its norms in and its head out."""
        spec = ModelSpec(backbone=self.shared.backbone, width=self.shared.width)
        abstract = spec.abstract(1)
        head = trees.count(abstract["adapters"]["head"])
        return trees.count(abstract["params"]) + trees.count(abstract["adapters"]) - head

    def parameters(self, domain: str) -> int:
        """Return how many parameters a domain brings, head in; for the source, the shared too."""
        shared = trees.count(self.shared.params) if domain == self.shared.source else 0
        return self[domain].parameters() + shared

    def ratio(self, domain: str) -> float:
        """Return a domain's parameters over the backbone's, heads apart (CVPR 2018, table 1)."""
        member = self[domain]
        shared = trees.count(self.shared.params) if domain == self.shared.source else 0
        return (member.parameters(head=False) + shared) / self.backbone_parameters()
