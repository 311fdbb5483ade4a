"""The user's object: shared weights plus a bank of domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from radapt_jax import bundle, checkpoint, exporting, files, serving, trees
from radapt_jax.bank import Bank
from radapt_jax.checkpoint import Shared
from radapt_jax.data.images import preprocess
from radapt_jax.domains import check_apart, check_name
from radapt_jax.folded import FoldedDomain
from radapt_jax.fuse import FoldedVariables, fold
from radapt_jax.member import Member
from radapt_jax.models import ModelSpec
from radapt_jax.predictor import Predictor
from radapt_jax.values import check, whole

SHOWN = 8  # domains in a repr


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
        trees.check_like(shared.params, shared.spec.abstract(1)["params"], "the shared weights")
        self.shared = shared
        self._source_left_at: Path | None = None  # where `load` left the source domain
        self.fingerprint = shared.fingerprint(joint=False)
        self._joint_fingerprint = shared.fingerprint(joint=True)
        self._params = jax.tree.map(jnp.asarray, shared.params)
        self._bank = Bank(lambda name: self._predictor.forget(name))
        self._predictor = Predictor(self._params, self._bank)
        for member in members:
            self.add(member.domain.name, member)

    @classmethod
    def load(
        cls,
        workdir: str | Path,
        domains: str | Iterable[str] | None = None,
        *,
        at_most: int | None = None,
        pinned: str | Iterable[str] = (),
    ) -> Family:
        """Read the shared weights and all domains (or those named) of a workdir.

        Args:
          workdir: of a run, or where a family was saved.
          domains: which, or one alone; default: all. A source domain that is not among them is
            left there, and `save` writes it along: new domains start from its norms.
          at_most: read domains when they are first used, and hold so many of them in memory, the
            last used ones: for hundreds of domains. Default: read all of them now.
          pinned: of those, which to read now and to hold until they are unpinned; see `pin`.

        Raises:
          FileNotFoundError: no shared weights there, or no such domain.
          KeyError: a pinned one is not among the domains.
          ValueError: a checkpoint is damaged, or does not fit its own description; where domains
            are read later, then.
        """
        names = checkpoint.list_members(workdir) if domains is None else _several(domains)
        if at_most is not None and at_most < 1:
            raise ValueError(f"found at_most {at_most}; expected at least 1 domain in memory.")
        shared = checkpoint.load_shared(workdir)
        now = names if at_most is None else ()
        family = cls(shared, (checkpoint.load_member(workdir, name) for name in now))
        if shared.source in set(checkpoint.list_members(workdir)) - set(names):
            family._source_left_at = Path(workdir).absolute()
        if at_most is not None:
            check_apart(names)
            family._bank.open(
                {name: checkpoint.read_member_card(workdir, name).num_classes for name in names},
                lambda name: family._fitted(name, checkpoint.load_member(workdir, name)),
                at_most,
            )
        for name in _several(pinned):
            family.pin(name)
        return family

    def save(self, path: str | Path) -> None:
        """Write the shared weights and every domain under `path`, to be read by `load`.

        The source domain goes along, even where `load` was told to leave it out.

        Raises:
          ValueError: there are other shared weights at `path`. Nothing is written then.
          FileNotFoundError: the source domain was left out, and is no longer where it was.
        """
        if (files.located(path) / "shared").exists():
            there = checkpoint.load_shared(path).fingerprint(joint=True)
            if there != self._joint_fingerprint:
                raise ValueError(
                    f"{path} holds a family of other shared weights.\n"
                    f"  this family:  sha256 {self._joint_fingerprint[:12]}...\n"
                    f"  there:        sha256 {there[:12]}...\n"
                    "Save to another folder."
                )
        source = self.shared.source
        if (
            source
            and self._source_left_at
            and source not in {*self, *checkpoint.list_members(path)}
        ):
            left = checkpoint.load_member(self._source_left_at, source)
            checkpoint.save_member(self._fitted(source, left), path)
        for name in self.domains:
            checkpoint.save_member(self[name], path)
        checkpoint.save_shared(self.shared, path)

    @property
    def domains(self) -> list[str]:
        """Names of the domains: the source that w was pre-trained on, then the others, sorted."""
        return sorted(self._bank.names, key=lambda name: (name != self.shared.source, name))

    def __getitem__(self, domain: str) -> Member:
        """Return what the family holds of one domain.

        Raises:
          KeyError: there is no such domain; the message lists those there are.
        """
        self._check_there(domain)
        return self._bank[domain]

    def _check_there(self, domain: str) -> None:
        if domain not in self._bank.names:
            raise KeyError(f"found no domain {domain!r} in this family; it has {self.domains}.")

    def __repr__(self) -> str:
        shared, names = self.shared, self.domains
        more = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return (
            f"Family({shared.backbone}, width {shared.width:g}, source {shared.source!r},\n"
            f"       {len(names)} domains: {', '.join(names[:SHOWN])}{more})"
        )

    def __contains__(self, domain: object) -> bool:
        return domain in self._bank.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.domains)

    def __len__(self) -> int:
        return len(self._bank.names)

    def variables(self, domain: str) -> dict[str, Any]:
        """Return `params`, `adapters` and `batch_stats` of one domain, for `model.apply`.

        `params` are the shared arrays themselves, unless the domain has weights of its own.
        """
        self[domain]
        return {"params": self._params, **self._bank.variables(domain)}

    def shared_for(self, spec: ModelSpec) -> dict[str, Any]:
        """Return the shared `params` that a network needs: β only for jointly compressed ones."""
        leaves, _ = trees.split(
            self._params, lambda path: spec.adapter == "joint" or not path.endswith("/beta")
        )
        return trees.unflatten(leaves)

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
          TypeError: it is no `Member`.
          ValueError: it was trained on other shared weights, on another width, its variables have
            other shapes than its class count and adapter kind need, or its name differs from
            another's in case alone. Nothing is changed then.
        """
        if not isinstance(domain, Member):
            raise TypeError(
                f"found {type(domain).__name__} for domain {name!r}; expected a Member: "
                "other_family[name], or Member(domain, spec, variables) with its facts."
            )
        check_name(name)
        check_apart([*(self._bank.names - {name}), name])
        self._bank.add(name, self._fitted(name, domain))
        self._predictor.clear()  # the largest class count may have changed

    def remove(self, name: str) -> Member:
        """Take a domain out of the family (not off the disk), and return it."""
        member = self[name]
        self._bank.remove(name)
        self._predictor.clear()
        return member

    def pin(self, name: str) -> None:
        """Hold a domain in memory, whatever else is used: it is read now, if it is not there.

        Pinned domains do not count among the `at_most` of `load`. Without `at_most` all are held,
        pinned or not.

        Raises:
          KeyError: there is no such domain.
        """
        self[name]
        self._bank.pin(name)

    def unpin(self, name: str) -> None:
        """Let a domain go again when others are used; one that is not pinned stays as it is.

        Raises:
          KeyError: there is no such domain.
        """
        self._check_there(name)
        self._bank.unpin(name)

    def _fitted(self, name: str, domain: Member) -> Member:
        """Return a domain under a name, as one of this family's.

        Raises:
          ValueError: it does not fit.
        """
        self._check_fits(name, domain)
        member = dataclasses.replace(
            domain,
            domain=dataclasses.replace(domain.domain, name=name),
            shared=None if domain.has_own_weights else self._fingerprint_for(domain),
        )
        member.check()
        return member

    def _fingerprint_for(self, member: Member) -> str:
        return self._joint_fingerprint if member.is_joint else self.fingerprint

    def _check_fits(self, name: str, member: Member) -> None:
        if member.spec.backbone != self.shared.backbone or member.spec.width != self.shared.width:
            raise ValueError(
                f"domain {name!r} belongs to another network.\n"
                f"  this family:  {self.shared.backbone}, width {self.shared.width}\n"
                f"  the domain:   {member.spec.backbone}, width {member.spec.width}\n"
                "Load the family it was trained with, or retrain it on this one."
            )
        if member.is_joint and member.spec.ranks != self.shared.ranks:
            raise ValueError(
                f"domain {name!r} stands on shared β of other ranks than this family has.\n"
                f"  this family:  {_first(self.shared.ranks) or 'no shared β'}\n"
                f"  the domain:   {_first(member.spec.ranks)}\n"
                "Load the compressed family it was trained with."
            )
        ours = self._fingerprint_for(member)
        if not member.has_own_weights and member.shared not in (None, ours):
            raise ValueError(
                f"domain {name!r} was trained on other shared weights.\n"
                f"  this family:  sha256 {ours[:12]}...\n"
                f"  the domain:   sha256 {member.shared[:12]}... "
                f"({member.spec.backbone}, width {member.spec.width})\n"
                "Load the family it was trained with, or retrain it: python train.py --config "
                f"configs/parallel.py --config.domains={name} --config.init_from=<this family>"
            )

    def predict(
        self,
        images: Any,
        *,
        domain: str | None = None,
        domains: Iterable[str] | None = None,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Return class probabilities of images, of one domain or of several mixed.

        Compiled once per batch shape: domains of the same adapter kind share one program, whatever
        their class counts (it is compiled again when a larger class count is added). Up to
        `batch_size` images are one batch, as many as they are; more are cut into batches of that
        size, the last one padded, so that one program does for any number of them, in the memory
        of one batch.

        Args:
          images: (n, h, w, 3) at the size the network is to see, sides multiples of 8. uint8 in
            [0, 255] is normalised with the domain's mean and std; floats are taken as normalised
            already: beyond 2 / std they are refused, as pixels in [0, 255], and all within [0, 1]
            they come with a warning.
          domain: whose adapters, norms and head to use, for all images; or
          domains: for each image, n names. Each image goes through its own domain in one call;
            in one for each network among them, where adapter kinds or ranks differ or domains
            have weights of their own.
          batch_size: images that go through the network at once, at most.

        Returns:
          float32 (n, classes). With `domains`, classes is the largest count among them, and
          columns beyond an image's own classes are 0.

        Raises:
          KeyError: no such domain.
          ValueError: images of another rank, channel count, dtype or side, or with values that are
            not finite or not normalised; neither or both of `domain` and `domains`, or not one
            name per image; a batch size below 1.
        """
        if (domain is None) == (domains is None) or isinstance(domains, str):
            raise ValueError("expected either domain='name' or domains=[one name per image].")
        check("batch_size", batch_size, whole(1))
        named = [domain] if domain is not None else _several(() if domains is None else domains)
        images = serving.check_images(images, [self[name].domain for name in set(named)])
        if len(named) != len(images) and domain is None:
            raise ValueError(f"found {len(named)} domains for {len(images)} images.")
        if domain is None:
            return self._predictor.mixed(images, named, batch_size)
        if len(images) == 0:
            return np.zeros((0, self[domain].domain.num_classes), np.float32)
        return self._predictor.one(images, domain, batch_size)

    def fold(self, domain: str, *, fold_norm: bool = False) -> FoldedDomain:
        """Fold a domain's adapters into the filters: a plain network of the backbone's speed.

        Args:
          domain: which one.
          fold_norm: fold the norms that follow convolutions in as well.
        """
        member, variables = self[domain], self.variables(domain)
        filters = variables["params"]
        spec = ModelSpec(member.spec.backbone, member.spec.width, folded_norms=fold_norm)
        folded = fold(**variables, fold_norm=fold_norm)
        return FoldedDomain(member.domain, FoldedVariables(spec, folded, filters))

    def export(
        self, domain: str, path: str | Path, *, platforms: str | Sequence[str] = ("cpu", "cuda")
    ) -> None:
        """Write a domain as one StableHLO file that jax alone runs; see radapt_jax.exporting.

        Args:
          domain: which one.
          path: of the file; its facts go to `<path>.json`.
          platforms: what it is to run on, one or several of "cpu", "cuda", "rocm" and "tpu".

        Raises:
          KeyError: no such domain.
          ValueError: no platform, or one that is not known.
          OSError: nothing can be written there; files that were there are as they were.
        """
        member, folded = self[domain], self.fold(domain)
        exporting.export(
            folded.weights.spec, folded.weights.variables, member.domain, path, platforms
        )

    def save_domain(self, domain: str, path: str | Path) -> None:
        """Write a domain as one safetensors file that knows its facts; see radapt_jax.bundle."""
        bundle.write(self[domain], path)

    def load_domain(self, path: str | Path, name: str | None = None) -> str:
        """Add the domain of a safetensors file, under its own name or another; return the name.

        Raises:
          FileNotFoundError: no such file.
          ValueError: it is no such file, is damaged, or belongs to other shared weights. Nothing is
            changed then.
        """
        member = bundle.read(path)
        name = name or member.domain.name
        self.add(name, member)
        return name

    def preprocess(self, images: Any, *, domain: str) -> np.ndarray:
        """Return images as `predict` takes them: uint8 (n, size, size, 3).

        Resized and cropped as at this domain's evaluation.

        Args:
          images: one or several, in a list, a generator or an array: paths, encoded bytes, PIL
            images, or uint8 arrays (h, w), (h, w, 3) or (h, w, 4), of JAX too; see
            `data.images` for what becomes of grey, 16 bits and the like.
          domain: whose resizing and crop to use.

        Raises:
          KeyError: no such domain.
          FileNotFoundError: no such file.
          ValueError: something that cannot be read as an image.
        """
        return preprocess(images, self[domain].domain)

    def backbone_parameters(self) -> int:
        """Return the parameters of the network without adapters, its norms in and its head out."""
        abstract = ModelSpec(self.shared.backbone, self.shared.width).abstract(1)
        head = trees.count(abstract["adapters"]["head"])
        return trees.count(abstract["params"]) + trees.count(abstract["adapters"]) - head

    def basis_parameters(self) -> int:
        """Return the parameters of the β that jointly compressed domains share; 0 without."""
        leaves, _ = trees.split(self.shared.params, lambda path: path.endswith("/beta"))
        return trees.count(trees.unflatten(leaves))

    def _shared_with(self, domain: str) -> int:
        filters = trees.count(self.shared.params) - self.basis_parameters()
        return filters if domain == self.shared.source else 0

    def parameters(self, domain: str) -> int:
        """Return how many parameters a domain brings, head in; for the source, the filters too."""
        return self[domain].parameters() + self._shared_with(domain)

    def ratio(self, domain: str) -> float:
        """Return a domain's parameters over the backbone's, heads apart (CVPR 2018, table 1)."""
        own = self[domain].parameters(head=False) + self._shared_with(domain)
        return own / self.backbone_parameters()


def _several(names: str | Iterable[str]) -> list[str]:
    """Return names as a list; a string is one name."""
    return [names] if isinstance(names, str) else [str(name) for name in names]


def _first(ranks: Any) -> str:
    """Describe ranks by convolution in a few words."""
    if not isinstance(ranks, Mapping):
        return f"{ranks:g} of the full rank"
    return ", ".join(f"{conv} {rank}" for conv, rank in list(ranks.items())[:3])
