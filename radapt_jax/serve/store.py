"""The workdir of a server: domains that were put or deleted are so after a restart, too.

Nothing is lost: a domain that is replaced or deleted is kept as a file in `<workdir>/removed`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.family.member import Member
from radapt_jax.models.registry import Backbones
from radapt_jax.train.lock import held

REMOVED = "removed"


class Store:
    """A workdir that a server changes; it is locked while it does.

    Args:
      workdir: of the family that is served.
      backbones: your own networks, by name.
    """

    def __init__(self, workdir: str | Path, backbones: Backbones | None = None) -> None:
        self._workdir, self._backbones = Path(workdir), backbones

    def holds(self, name: str, version: str) -> bool:
        """Whether this version of a domain is there, undamaged."""
        try:
            found = checkpoint.load_member(self._workdir, name, self._backbones)
        except (ValueError, OSError):
            return False
        return str(found.card()["sha256"]) == version

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

        Of one that is damaged, its folder is copied.
        """
        folder = self._workdir / REMOVED
        folder.mkdir(exist_ok=True)
        try:
            member = checkpoint.load_member(self._workdir, name, self._backbones)
        except ValueError:
            damaged = checkpoint.domain_folder(self._workdir, name)
            shutil.copytree(
                damaged, tempfile.mkdtemp(dir=folder, prefix=f"{name}-damaged-"), dirs_exist_ok=True
            )
            return
        digest = adapter_file.digest(member)
        adapter_file.write(member, folder / f"{name}-{digest[:12]}.safetensors")
