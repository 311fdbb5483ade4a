"""Stopping when the system or the user asks for it: what is trained is saved first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A run was asked to stop; `code` is the exit status that says so, 128 and the signal."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.code = 128 + number


class Stopping:
    """A context manager that turns SIGTERM and SIGINT into `Stopped`.

    Inside `held` a signal waits, in `asked`; elsewhere it is raised at once, which loses nothing:
    what is written to disk is complete or is not there. The second signal does not wait. Outside of
    the main thread, where Python gives no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = 0  # the signal that waits, if there is one
        self._held = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let signals wait while this runs."""
        self._held = True
        try:
            yield
        except Exception as error:
            if self.asked:
                raise Stopped(self.asked, f"stopped; meanwhile: {error}") from error
            raise
        finally:
            self._held = False
        if self.asked:
            message = "stopped after a training that is saved. "
            raise Stopped(self.asked, message + "Start the same command again to go on.")

    def _receive(self, number: int, _: FrameType | None) -> None:
        again, self.asked = self.asked, number
        if again or not self._held:
            raise Stopped(number, "stopped; what was saved is kept.")
