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
from radapt_jax.family.folded import FoldedDomain, FoldedVariables
from radapt_jax.family.member import Member
from radapt_jax.family.predict import Predictor, check_images
from radapt_jax.family.shared import Shared
from radapt_jax.models.fold import fold, folded_spec
from radapt_jax.models.registry import Backbones
from radapt_jax.utils import files
from radapt_jax.utils.checks import check, whole

SHOWN = 8  # domains in a repr


class Family(Domains):
    """Shared weights and the domains that were trained on them.

        family = Family.load("runs/quickstart")
        images = family.preprocess(["a.png", "b.png"], domain="digits")
        family.predict(images, domain="digits")     # (2, 10) probabilities

    Args:
      shared: the shared weights; see `load` for reading them from a workdir.
      members: domains to start with.
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
          domains: which, or one alone; default: all. A source domain that is not among them is
            left there, and `save` writes it along: new domains start from its norms.
          at_most: read domains when they are first used, and hold so many of them in memory, the
            last used ones: for hundreds of domains. Default: read all of them now.
          pinned: of those, which to read now and to hold until they are unpinned; see `pin`.
          backbones: networks of one's own that the family may be of, by name; cards only name
            them.

        Raises:
          FileNotFoundError: no shared weights there, or no such domain.
          KeyError: a pinned one is not among the domains.
          ValueError: a checkpoint is damaged, or does not fit its own description; where domains
            are read later, then.
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
            family._bank.open(
                {
                    name: checkpoint.read_member_card(workdir, name, backbones).num_classes
                    for name in names
                },
                lambda name: family._fitted(name, load(name)),
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
            there = checkpoint.load_shared(path, self._own_backbone()).fingerprint(joint=True)
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
            left = checkpoint.load_member(self._source_left_at, source, self._own_backbone())
            checkpoint.save_member(self._fitted(source, left), path)
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
        images = check_images(images, [self[name].domain for name in set(named)])
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
        folded = FoldedVariables(
            folded_spec(member.spec, fold_norm=fold_norm),
            fold(member.spec, variables, fold_norm=fold_norm),
            shared=variables["params"],
        )
        return FoldedDomain(member.domain, folded)

    def export(
        self, domain: str, path: str | Path, *, platforms: str | Sequence[str] = ("cpu", "cuda")
    ) -> None:
        """Write a domain as one StableHLO file that jax alone runs; see `family.export`.

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
        family_export.export(
            folded.weights.spec, folded.weights.variables, member.domain, path, platforms
        )

    def save_domain(self, domain: str, path: str | Path) -> None:
        """Write a domain as one safetensors file with its facts; see `family.adapter_file`."""
        adapter_file.write(self[domain], path)

    def load_domain(self, path: str | Path, name: str | None = None) -> str:
        """Add the domain of a safetensors file, under its own name or another; return the name.

        Raises:
          FileNotFoundError: no such file.
          ValueError: it is no such file, is damaged, or belongs to other shared weights. Nothing is
            changed then.
        """
        member = adapter_file.read(path, self._own_backbone())
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


def _several(names: str | Iterable[str]) -> list[str]:
    """Return names as a list; a string is one name."""
    return [names] if isinstance(names, str) else [str(name) for name in names]
