"""A process that answers JSON lines: ours and the peer are each measured in one of their own.

So they share no memory and no threads, the peak memory is that of one row alone, and PyTorch may
live in another environment. Standard library only, for the same reason.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path


class Worker:
    """A script of this folder under a Python; `ask` calls a method of the object it answers for."""

    def __init__(self, python, script, **environment):
        self._process = subprocess.Popen(
            [python, str(Path(__file__).parent / script)],
            env={
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a GPU is shared
                **os.environ,
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._script = script

    @property
    def pid(self):
        return self._process.pid

    def ask(self, do, **request):
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._script} ended when asked to {do}; its error is above.")
        return json.loads(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)


def answer(target):
    """Call the methods of `target` that lines on stdin ask for, until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        found = getattr(target, request.pop("do"))(**request)
        print(json.dumps(found), flush=True)


def seconds(run, n, warm=0.0):
    """Return the seconds of each of n calls, after calls that take `warm` seconds in all."""
    found, end = [], time.perf_counter() + warm
    while time.perf_counter() < end:
        run()
    for _ in range(n):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def resident_peak():
    """Return the most memory that this process has held, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
