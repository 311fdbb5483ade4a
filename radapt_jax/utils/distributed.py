"""Several processes that train together, on one host or many; a single process works the same way.

All run the same program. Process 0, the main one, writes the files and sends what it finds or
decides to the others (`by_main`), so that all of them take the same path.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost
from orbax.checkpoint import v1 as ocp

log = logging.getLogger(__name__)
Result = TypeVar("Result")
HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
LONGEST = 7 * 24 * 3600 * 1000  # milliseconds; a wait ends earlier if a process dies
_turns = itertools.count()  # gives every barrier its own name, the same on all processes


def initialize(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other processes; call this before anything is computed.

    If one process gives no sign of life for HEARTBEAT seconds, all others end.

    Args:
      coordinator: HOST:PORT at which the others reach process 0. None asks the cluster (Slurm,
        Open MPI, Kubernetes, a TPU pod); the other two arguments are not needed then.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      ValueError: only some of the three are given, or the process number is out of range.
      ConnectionError: JAX knows no such cluster, or cannot reach the other processes.
    """
    given = (coordinator, processes, process)
    if any(value is None for value in given) and given != (None, None, None):
        raise ValueError(
            f"found --coordinator={coordinator}, --processes={processes} and --process={process}; "
            "expected all three, or only --distributed on a cluster that knows them."
        )
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ValueError(f"found --process={process}; expected 0 to {processes - 1}.")
    if coordinator is not None:
        log.info("process %s of %s: joins the others at %s", process, processes, coordinator)
    # JAX's own handler would keep SIGTERM from ending the process.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=None if coordinator is None else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        where = f"at {coordinator}" if coordinator else "of a cluster that JAX can ask"
        raise ConnectionError(
            f"found no other processes {where}: {error}\n"
            "Expected Slurm (srun), Open MPI (mpirun), Kubernetes or a TPU pod; elsewhere start "
            "each process with --coordinator=HOST:PORT --processes=N --process=I, where HOST is "
            "the host of process 0 and PORT is free there."
        ) from error
    _meet()


def _meet() -> None:
    """Sum over all devices once, to connect the processes while all of them are here.

    On CPUs, Gloo waits only 30 seconds for a late process, and a training step can take longer to
    compile.
    """
    held = {
        index: len(jax.local_devices(process_index=index)) for index in range(jax.process_count())
    }
    if len(set(held.values())) > 1:
        raise ValueError(
            f"found {held} devices by process; expected the same number in each. Give every "
            "process as many devices."
        )
    mesh = jax.sharding.Mesh(np.array(devices()), ("devices",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    ones = np.ones(jax.local_device_count(), np.int32)
    total = jax.jit(jnp.sum)(jax.make_array_from_process_local_data(sharding, ones))
    assert int(total) == len(devices())


def several() -> bool:
    """Return whether there are other processes; does not initialise JAX if there are none."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def place() -> tuple[int, int]:
    """Return which process this is, and how many there are."""
    return (jax.process_index(), jax.process_count()) if several() else (0, 1)


def is_main() -> bool:
    """Return whether this is process 0."""
    return place()[0] == 0


def devices() -> list[jax.Device]:
    """Return the devices of all processes, grouped by process."""
    found = (jax.local_devices(process_index=index) for index in range(jax.process_count()))
    return list(itertools.chain.from_iterable(found))


def own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Return the devices that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def by_main(work: Callable[[], Result]) -> Result:
    """Run `work` on process 0 while the others wait; all return its result, or raise its error.

    Results and errors travel as pickles.
    """
    if not several():
        return work()
    outcome = _outcome(work) if is_main() else b""
    result, problem = pickle.loads(_from_main(outcome))
    if problem is not None:
        raise _everywhere(problem)
    return result


def check_same(value: Any, what: str) -> None:
    """Raise RuntimeError on all processes if `value` differs on one of them from process 0."""
    expected = by_main(lambda: value)
    with agreed():
        if expected != value:
            raise RuntimeError(f"{what}: found {value}; expected {expected}, as on process 0.")


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Fail on all processes if the code inside, which each runs on its own, fails on one."""
    problem = None
    try:
        yield
    except Exception as error:
        if not several():
            raise
        problem = error
    if not several():
        return
    _wait()
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(problem is not None)))
    if problem is not None:
        raise _everywhere(problem)
    if len(failed):
        raise _everywhere(RuntimeError(f"failed on process {failed[0]}; its output says why."))


def is_everywhere(error: Exception) -> bool:
    """Return whether all processes raised this error, so that they can continue together.

    A loss that is not finite is such an error: it is the mean over all devices.
    """
    if not several() or isinstance(error, FloatingPointError) or hasattr(error, "everywhere"):
        return True
    return isinstance(error.__cause__, Exception) and is_everywhere(error.__cause__)


def together() -> ocp.Context:
    """Return the context of an Orbax save: all processes call it, and process 0 writes.

    Orbax numbers the saves and loads of a process and waits for the others to reach the same
    number, so all processes must do equally many of each.
    """
    return ocp.Context()


def alone() -> ocp.Context:
    """Return the context in which Orbax reads without waiting for other processes."""
    context, (here, _) = ocp.Context(), place()
    context.multiprocessing.primary_host = here
    context.multiprocessing.active_processes = {here}
    return context


def largest(number: int) -> int:
    """Return the largest `number` of all processes."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number)))) if several() else number


def stop(message: str, code: int = 1) -> NoReturn:
    """End this process with a message and an exit code.

    With several processes it ends at once: a normal exit would wait for the others while they
    wait for this one.
    """
    here, count = place()
    if count > 1:
        message = (
            f"process {here} of {count} has stopped, and with it the run. {message}\n"
            "Everything saved so far is intact; to continue, start the same command again on all "
            "hosts."
        )
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if several():
        if code != 1:  # a signal reached all processes, and the others may still be saving
            with contextlib.suppress(Exception):
                _wait(1000 * HEARTBEAT)
        os._exit(code)
    sys.exit(code)


def _wait(longest: int = LONGEST) -> None:
    """Wait for all processes, through the coordinator: a wait between devices would time out."""
    barrier = multihost.get_barrier_sync_fn()
    barrier(key=f"radapt_jax/{next(_turns)}", timeout_ms=longest)


def _from_main(data: bytes) -> bytes:
    """Return the `data` of process 0."""
    _wait()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(1 << (size - 1).bit_length(), np.uint8)  # few lengths: few programs
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded))[:size].tobytes()


def _outcome(work: Callable[[], Any]) -> bytes:
    """Return the result of `work` and its error, one of which is None, as a pickle."""
    try:
        return pickle.dumps((work(), None))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some error classes cannot be pickled
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return pickle.dumps((None, error))


def _everywhere(error: Exception) -> Exception:
    error.everywhere = True  # type: ignore[attr-defined]
    return error


AXIS = "devices"


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Copy a tree to all devices, laid out as the steps return it, so that they compile only once.

    With several processes, each copies its own tree to its own devices.
    """
    return jax.device_put(tree, sharding(devices))


def distribute(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Split a tree over the devices along its leading axis."""
    return jax.device_put(tree, sharding(devices, AXIS))


def sharding(devices: Sequence[jax.Device], *axes: str) -> jax.sharding.NamedSharding:
    """Return the sharding over this process's devices, split along `axes` or replicated."""
    mesh = jax.sharding.Mesh(np.array(own(devices)), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
