"""A server of `radapt serve` in a process of its own, for tests and benchmarks."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
TOKEN = "a token for tests alone"
PATIENCE = 240  # seconds until it is ready


class Server:
    """Serves a workdir until `stop`; with a token unless it is None.

    Args:
      workdir: of a family.
      log: file for what it prints.
      arguments: of the command.
      token: what PUT and DELETE need.
      core: the CPU that the process may use; None: all.
    """

    def __init__(self, workdir, log, *arguments, token=TOKEN, core=None):
        self.log = Path(log)
        command = [sys.executable, "-m", "radapt_jax", "serve", str(workdir), "--port", "0"]
        if token is not None:
            file = self.log.with_suffix(".token")
            file.write_text(token + "\n")
            command += ["--token_file", str(file)]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        environment = {key: it for key, it in os.environ.items() if key != "XLA_FLAGS"}
        environment["PYTHONPATH"] = str(ROOT)
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self.url = self._found(r"at (http://\S+);")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=120)
        self.ready()

    def _found(self, pattern):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if found := re.search(pattern, self.log.read_text()):
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")

    def ready(self):
        """Wait until predictions are answered."""
        until = time.monotonic() + PATIENCE
        while self.client.get("/readyz").status_code != 200:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"the server is not ready:\n{self.log.read_text()}")
            time.sleep(0.1)

    def stop(self, number=signal.SIGTERM):
        """Stop it; return its exit status."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(90)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)
