"""The workdir of a server: domains that were put or deleted are so after a restart, too.

Nothing is lost: a domain that is replaced or deleted is kept as a file in `<workdir>/removed`.
"""

from __future__ import annotations

from pathlib import Path

from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.models.registry import Backbones
from radapt_jax.train.lock import held

REMOVED = "removed"


class Store:
    """A workdir that a server changes; it is locked while it does.

    Args:
      workdir: of the family.
      family: the domains that are served.
      backbones: your own networks, by name.
    """

    def __init__(
        self, workdir: str | Path, family: Family, backbones: Backbones | None = None
    ) -> None:
        self._workdir, self._family, self._backbones = Path(workdir), family, backbones

    def put(self, member: Member) -> None:
        """Save a domain, and keep the one of its name.

        Raises:
          BlockingIOError: another process writes to the workdir.
          OSError: it cannot be written; what was saved before is intact.
        """
        with held(self._workdir):
            if member.domain.name in checkpoint.list_members(self._workdir):
                self._keep(member.domain.name)
            checkpoint.save_member(member, self._workdir)

    def remove(self, name: str) -> None:
        """Delete a domain, and keep its file.

        Raises:
          BlockingIOError: another process writes to the workdir.
          OSError: it cannot be done; the domain is still there.
        """
        with held(self._workdir):
            self._keep(name)
            checkpoint.delete_member(self._workdir, name)

    def _keep(self, name: str) -> None:
        """Write a domain's file as it is on disk, which another process may have changed.

        It is read only if it is another than the one that is served: Orbax does not free what it
        reads of a checkpoint's metadata, about 1 MiB.
        """
        card, _ = checkpoint.read_member_card(self._workdir, name, self._backbones)
        version = str(card["sha256"])
        if name in self._family and self._family[name].card()["sha256"] == version:
            member = self._family[name]
        else:
            member = checkpoint.load_member(self._workdir, name, self._backbones)
        folder = self._workdir / REMOVED
        folder.mkdir(exist_ok=True)
        adapter_file.write(member, folder / f"{name}-{version[:12]}.safetensors")
