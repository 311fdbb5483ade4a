"""Domains that fail do not stop the others of a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from radapt_jax.evaluation.result import Result
from radapt_jax.utils import distributed

log = logging.getLogger(__name__)


class DomainsFailed(RuntimeError):
    """Some domains of a run could not be trained; `rows` are those of all others."""

    def __init__(self, message: str, rows: list[Result]) -> None:
        super().__init__(message)
        self.rows = rows


class Failures:
    """Keeps count of the domains that failed, while the others go on.

    Of several processes all must go on, or none: an error that only one has met is raised.

    Args:
      wanted: the domains of the run. A failure of the only one is raised at once.
      essential: the one that no other can do without.
    """

    def __init__(self, wanted: Sequence[str], essential: str | None = None) -> None:
        self._wanted, self._essential = wanted, essential
        self._found: dict[str, str] = {}  # no exceptions: those keep arrays alive

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Note an error that is raised inside, and go on after it."""
        try:
            yield
        except Exception as error:
            only = len(self._wanted) == 1 or name == self._essential
            if only or not distributed.is_everywhere(error):
                raise
            known = isinstance(error, ValueError | OSError | FloatingPointError)
            message = str(error) if known else f"{type(error).__name__}: {error}"
            self._found[name] = message
            log.error("%s failed, the other domains go on. %s", name, message, exc_info=not known)

    @property
    def all(self) -> bool:
        """Whether every domain has failed."""
        return len(self._found) == len(self._wanted)

    def tell(self, rows: list[Result]) -> None:
        """Raise DomainsFailed if there were any."""
        if self._found:
            lines = [f"  {name}: {message}" for name, message in self._found.items()]
            raise DomainsFailed(
                f"{len(self._found)} of {len(self._wanted)} domains failed:\n"
                + "\n".join(lines)
                + "\nMend that and start the same command again; the others are kept.",
                rows,
            )
