"""Whether a machine does other work while something is measured on it.

Threads that wait for one another by spinning lose most of their speed where another process takes
a core for a while, so a figure of a busy machine says little. Linux counts the time that all
processes together, and each of them, have used; elsewhere nothing is known.
"""

import os
import time
from pathlib import Path

TRIES = 3  # to measure on a quiet machine
MOST = 0.05  # share of the cores that others may use where a machine counts as quiet
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
STAT = Path("/proc/stat")


class Watch:
    """Watches the machine from here on.

    Args:
      pids: processes whose work is not that of others, beside this one.
    """

    def __init__(self, pids=()):
        self._pids = (os.getpid(), *pids)
        self._start, self._before = time.perf_counter(), self._seconds()

    def others(self):
        """Return the share of all cores that others have used since; None if that is not known."""
        passed, now = time.perf_counter() - self._start, self._seconds()
        if now is None or self._before is None:
            return None
        all_of_it, own = (after - before for after, before in zip(now, self._before, strict=True))
        return max(all_of_it - own, 0.0) / (passed * os.cpu_count())

    def _seconds(self):
        """Return the seconds of work of all processes, and of ours; None if they are not told."""
        if not STAT.is_file():
            return None
        user, nice, system, _idle, _wait, irq, soft = map(
            int, STAT.read_text().split("\n")[0].split()[1:8]
        )
        own = sum(_used(pid) for pid in self._pids)
        return (user + nice + system + irq + soft) / TICKS, own / TICKS


def _used(pid):
    """Return the ticks that a process has used; its name may have spaces and brackets."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait(seconds=60.0, look=1.0):
    """Wait until the machine is quiet, at most for so long; return whether it is.

    Args:
      seconds: the most to wait.
      look: for how long the machine is watched each time.
    """
    end = time.perf_counter() + seconds
    while True:
        watch = Watch()
        time.sleep(look)
        if is_quiet(watch.others()):
            return True
        if time.perf_counter() > end:
            return False


def undisturbed(measure, others_of):
    """Return what `measure()` does, from a quiet machine if there is one within some tries.

    Args:
      measure: measures once.
      others_of: returns the share that others used, of what was measured.
    """
    for _ in range(TRIES):
        wait()
        found = measure()
        others = others_of(found)
        if is_quiet(others):
            break
        print(f"others used {others:.2f} of the machine", flush=True)
    return found


def told(others):
    """Return a share as a CSV file has it: nothing where it is not known."""
    return "" if others is None else f"{others:.2f}"


def is_quiet(others):
    """Tell whether others used little enough; where that is not known, they are taken to have."""
    return others is None or others <= MOST
