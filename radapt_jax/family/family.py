"""The user's object: shared weights plus a bank of domains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radapt_jax.data.domain import check_apart
from radapt_jax.data.images import preprocess
from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.family import export as family_export
from radapt_jax.family.domains import Domains
from radapt_jax.family.folded import FoldedDomain, folded
from radapt_jax.family.member import Member
from radapt_jax.family.predict import check_images
from radapt_jax.family.predictor import Predictor
from radapt_jax.family.rounding import rounding_of
from radapt_jax.family.shared import Shared
from radapt_jax.models.fold import can_fold
from radapt_jax.models.registry import Backbones
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import files
from radapt_jax.utils.checks import check, whole

SHOWN = 8  # domains in a repr


class Family(Domains):
    """Shared weights and the domains trained on them::

        family = Family.load("runs/quickstart")
        images = family.preprocess(["a.png", "b.png"], domain="digits")
        family.predict(images, domain="digits")     # (2, 10) probabilities

    Args:
      shared: the shared weights; `load` reads them from a workdir.
      members: domains to start with.

    Raises:
      ValueError: the shared weights do not fit their backbone, or a domain does not fit them.
    """

    def __init__(self, shared: Shared, members: Iterable[Member] = ()) -> None:
        super().__init__(shared, members)
        self._source_left_at: Path | None = None  # where `load` left the source domain
        self._predictor = Predictor(self._params, self._bank)

    @classmethod
    def load(
        cls,
        workdir: str | Path,
        domains: str | Iterable[str] | None = None,
        *,
        at_most: int | None = None,
        pinned: str | Iterable[str] = (),
        backbones: Backbones | None = None,
    ) -> Family:
        """Read the shared weights and all domains (or those named) of a workdir.

        Args:
          workdir: of a run, or where a family was saved.
          domains: their names, or a single name; default: all. If the source domain is not among
            them, `save` still copies it, because new domains start from its norms.
          at_most: read domains when they are first used, and hold only this many in memory, the
            most recently used: for hundreds of domains. Default: read all of them now.
          pinned: domains to read now and to hold until they are unpinned; see `pin`.
          backbones: your own networks, by name: subclasses of `Backbone`, or what `adapt` gave;
            cards hold only their names.

        Raises:
          FileNotFoundError: there are no shared weights, or there is no such domain.
          KeyError: a pinned domain is not among the domains.
          ValueError: a checkpoint is damaged or does not match its card; with `at_most`, this is
            raised when the domain is read.
        """
        names = checkpoint.list_members(workdir) if domains is None else _several(domains)
        if at_most is not None and at_most < 1:
            raise ValueError(f"found at_most {at_most}; expected at least 1 domain in memory.")
        shared = checkpoint.load_shared(workdir, backbones)
        now = names if at_most is None else ()

        def load(name: str) -> Member:
            return checkpoint.load_member(workdir, name, backbones)

        family = cls(shared, map(load, now))
        if shared.source in set(checkpoint.list_members(workdir)) - set(names):
            family._source_left_at = Path(workdir).absolute()
        if at_most is not None:
            check_apart(names)
            cards = {name: checkpoint.read_member_card(workdir, name, backbones) for name in names}
            classes = {name: member.domain.num_classes for name, (_, member) in cards.items()}
            family._bank.open(classes, lambda name: family.fitted(name, load(name)), at_most)
        for name in _several(pinned):
            family.pin(name)
        return family

    def save(self, path: str | Path) -> None:
        """Write the shared weights and every domain under `path`, to be read by `load`.

        The source domain is saved too, even if `load` left it out.

        Raises:
          ValueError: there are other shared weights at `path`. Nothing is written then.
          FileNotFoundError: `load` left the source domain out, and it is no longer where it was.
          OSError: nothing can be written there.
        """
        if (files.located(path) / "shared").exists():
            there = checkpoint.load_shared(path, self._own_backbone()).fingerprint(joint=True)
            if there != self._joint_fingerprint:
                raise ValueError(
                    f"{path} holds a family of other shared weights.\n"
                    f"  this family:  sha256 {self._joint_fingerprint[:12]}...\n"
                    f"  there:        sha256 {there[:12]}...\n"
                    "Save to another folder."
                )
        source = self.shared.source
        kept = {*self, *checkpoint.list_members(path)}
        if source and self._source_left_at and source not in kept:
            left = checkpoint.load_member(self._source_left_at, source, self._own_backbone())
            checkpoint.save_member(self.fitted(source, left), path)
        for name in self.domains:
            checkpoint.save_member(self[name], path)
        checkpoint.save_shared(self.shared, path)

    def __repr__(self) -> str:
        shared, names = self.shared, self.domains
        more = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return (
            f"Family({shared.backbone}, source {shared.source!r},\n"
            f"       {len(names)} domains: {', '.join(names[:SHOWN])}{more})"
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
        `batch_size` images form one batch; more are cut into batches of that size, with the last
        one padded, so that one program and the memory of one batch suffice for any number.

        Args:
          images: (n, h, w, 3), with sides that the backbone takes (ResNet-26: multiples of 8).
            uint8 in [0, 255] is normalised with the domain's mean and std. Floats must be
            normalised already: values beyond 2 / std are refused, as they are probably pixels in
            [0, 255], and there is a warning if all are in [0, 1].
          domain: whose adapters, norms and head to use for all images; or
          domains: n names, one for each image. Each image goes through its own domain, all in one
            call, or one call for each network. Domains with filters of their own (weights of their
            own, modulation, masks) take a call each.
          batch_size: the most images that go through the network at once.

        Returns:
          float32 (n, classes). With `domains`, classes is the largest count among them, and
          columns beyond an image's own classes are 0.

        Raises:
          KeyError: there is no such domain.
          ValueError: the images have another rank, channel count, dtype or side, or values that
            are not finite or not normalised; neither or both of `domain` and `domains` are given;
            there is not one name for each image; or the batch size is below 1.
        """
        if (domain is None) == (domains is None) or isinstance(domains, str):
            raise ValueError("expected either domain='name' or domains=[one name per image].")
        check("batch_size", batch_size, whole(1))
        named = [domain] if domain is not None else _several(() if domains is None else domains)
        images = check_images(images, [self[name].domain for name in set(named)])
        if len(named) != len(images) and domain is None:
            raise ValueError(f"found {len(named)} domains for {len(images)} images.")
        if domain is None:
            return self._predictor.mixed(images, named, batch_size)
        if len(images) == 0:
            return np.zeros((0, self[domain].domain.num_classes), np.float32)
        return self._predictor.one(images, domain, batch_size)

    def features(self, images: Any, *, domain: str, batch_size: int = 256) -> np.ndarray:
        """Return what a domain's head takes of images: float32 (n, channels).

        Args:
          images: as for `predict`.
          domain: whose adapters and norms to use.
          batch_size: the most images that go through the network at once.

        Raises:
          KeyError, ValueError: as `predict`.
        """
        check("batch_size", batch_size, whole(1))
        facts = self[domain].domain
        images = check_images(images, [facts])
        if len(images) == 0:
            head = self.variables(domain)["adapters"]["head"]["kernel"]
            return np.zeros((0, head.shape[0]), np.float32)
        return self._predictor.features(images, domain, batch_size)

    def fold(self, domain: str, *, fold_norm: bool = False) -> FoldedDomain:
        """Fold a domain's adapters into the filters: a plain network of the backbone's speed.

        Args:
          domain: its name.
          fold_norm: also fold in the norms that follow convolutions.

        Raises:
          KeyError: there is no such domain.
          ValueError: its adapters cannot be folded.
        """
        member, variables = self[domain], self.variables(domain)
        return FoldedDomain(member.domain, folded(member.spec, variables, fold_norm=fold_norm))

    def plainest(self, domain: str) -> tuple[ModelSpec, Any]:
        """Return a domain's network and variables for evaluation: folded, if that can be.

        Raises:
          KeyError: there is no such domain.
        """
        spec = self[domain].spec.served()
        if can_fold(spec):
            plain = self.fold(domain).weights
            return plain.spec, plain.variables
        return spec, self.variables(domain)

    def export(
        self, domain: str, path: str | Path, *, platforms: str | Sequence[str] = ("cpu", "cuda")
    ) -> None:
        """Write a domain as one StableHLO file that runs with only jax; see `family.export`.

        Adapters are folded, if they can be.

        Args:
          domain: its name.
          path: of the file; its facts go to `<path>.json`.
          platforms: where it can run, one or several of "cpu", "cuda", "rocm" and "tpu".

        Raises:
          KeyError: there is no such domain.
          ValueError: no platform, or an unknown one.
          OSError: nothing can be written there; files that are there stay unchanged.
        """
        spec, variables = self.plainest(domain)
        family_export.export(spec, variables, self[domain].domain, path, platforms)

    def save_domain(self, domain: str, path: str | Path, *, bits: int = 32) -> None:
        """Write a domain as one safetensors file with its facts; see `family.adapter_file`.

        With 2, 3, 4 or 8 `bits` what is written is rounded, see `rounding.Rounding`; with 32 it is
        not.

        Raises:
          KeyError: there is no such domain.
          ValueError: another number of bits, or values that they cannot hold.
          OSError: nothing can be written there; a file that is there stays unchanged.
        """
        member, rounding = self[domain], rounding_of(bits)
        adapter_file.write(member if rounding is None else member.rounded(rounding), path)

    def load_domain(self, path: str | Path, name: str | None = None) -> str:
        """Add the domain of a safetensors file, under its own name or another; return the name.

        Raises:
          FileNotFoundError: no such file.
          ValueError: it holds no domain, is damaged, or belongs to other shared weights. The
            family stays unchanged then.
        """
        member = self.read_domain(path)
        name = name or member.domain.name
        self.add(name, member)
        return name

    def preprocess(self, images: Any, *, domain: str) -> np.ndarray:
        """Return images as `predict` takes them: uint8 (n, size, size, 3).

        They are resized and cropped as in this domain's evaluation.

        Args:
          images: one or several, in a list, a generator or an array: paths, encoded bytes, PIL
            images, or uint8 arrays (h, w), (h, w, 3) or (h, w, 4), of NumPy or JAX; see
            `data.images.decode` for grey images, 16 bits and the like.
          domain: whose resizing and crop to use.

        Raises:
          KeyError: there is no such domain.
          FileNotFoundError: no such file.
          ValueError: an image cannot be read.
        """
        return preprocess(images, self[domain].domain)


def _several(names: str | Iterable[str]) -> list[str]:
    """Return names as a list; a single string is one name."""
    return [names] if isinstance(names, str) else [str(name) for name in names]
