"""Several processes that train together, on one host or on many; one process is a case of it.

All run the same program. Process 0, the main one, writes the files, and what it finds or decides
goes to the others (`by_main`), so that all take the same way.
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
_turns = itertools.count()  # a barrier has a name of its own, the same on all processes


def initialize(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other processes; to be called before anything is computed.

    A process that has given no sign of life for HEARTBEAT seconds ends all others.

    Args:
      coordinator: HOST:PORT of process 0, as all others reach it; None: the cluster is asked
        (Slurm, Open MPI, Kubernetes, a TPU pod), and the other two are not needed.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      ValueError: some of the three are missing, or out of range.
      ConnectionError: there is no cluster that JAX knows, or the others are not reached.
    """
    given = (coordinator, processes, process)
    if any(value is None for value in given) and given != (None, None, None):
        raise ValueError(
            f"found --coordinator={coordinator}, --processes={processes} and --process={process}; "
            "expected all three, or --distributed alone, where the cluster tells them."
        )
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ValueError(f"found --process={process}; expected 0 to {processes - 1}.")
    if coordinator is not None:
        log.info("process %s of %s: meets the others at %s", process, processes, coordinator)
    # Its handler would keep SIGTERM from ending the process.
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
            "that of process 0 and PORT is free there."
        ) from error
    _meet()


def _meet() -> None:
    """Take a first sum over all devices, while all processes are here.

    Gloo (CPUs) waits 30 seconds for one that is late, and training steps take longer to compile.
    """
    held = {
        index: len(jax.local_devices(process_index=index)) for index in range(jax.process_count())
    }
    if len(set(held.values())) > 1:
        raise ValueError(f"found devices by process {held}; expected as many in each.")
    mesh = jax.sharding.Mesh(np.array(devices()), ("devices",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    ones = np.ones(jax.local_device_count(), np.int32)
    total = jax.jit(jnp.sum)(jax.make_array_from_process_local_data(sharding, ones))
    assert int(total) == len(devices())


def several() -> bool:
    """Tell whether there are other processes; without waking JAX up where there are none."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def place() -> tuple[int, int]:
    """Return which process this is, and how many there are."""
    return (jax.process_index(), jax.process_count()) if several() else (0, 1)


def is_main() -> bool:
    """Tell whether this is process 0."""
    return place()[0] == 0


def devices() -> list[jax.Device]:
    """Return all devices of all processes, those of one process next to one another."""
    found = (jax.local_devices(process_index=index) for index in range(jax.process_count()))
    return list(itertools.chain.from_iterable(found))


def own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Return those of the devices that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def by_main(work: Callable[[], Result]) -> Result:
    """Let process 0 do something; all return its result, or raise its error.

    The others wait. Results and errors go through pickle.
    """
    if not several():
        return work()
    told = _told(work) if is_main() else b""
    result, problem = pickle.loads(_from_main(told))
    if problem is not None:
        raise _everywhere(problem)
    return result


def check_same(value: Any, what: str) -> None:
    """Raise RuntimeError on all processes if one of them has another `value` than process 0."""
    mains = by_main(lambda: value)
    with agreed():
        if mains != value:
            raise RuntimeError(f"{what}: found {value}; expected {mains}, as process 0 has it.")


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Let what is done inside, without the others, fail on all processes if it fails on one."""
    found = None
    try:
        yield
    except Exception as error:
        if not several():
            raise
        found = error
    if not several():
        return
    _wait()
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(found is not None)))
    if found is not None:
        raise _everywhere(found)
    if len(failed):
        raise _everywhere(RuntimeError(f"failed on process {failed[0]}; its output tells why."))


def is_everywhere(error: Exception) -> bool:
    """Tell whether all processes have met this error, so that they may go on together.

    A loss that is not finite is: it is the mean over all devices.
    """
    if not several() or isinstance(error, FloatingPointError) or hasattr(error, "everywhere"):
        return True
    return isinstance(error.__cause__, Exception) and is_everywhere(error.__cause__)


def together() -> ocp.Context:
    """Return the context of an Orbax save, which all processes call and process 0 writes.

    Orbax counts what a process saves and loads, and waits for those of the same count: all are to
    do as much of either.
    """
    return ocp.Context()


def alone() -> ocp.Context:
    """Return the context in which Orbax reads without waiting for other processes."""
    context, (here, _) = ocp.Context(), place()
    context.multiprocessing.primary_host = here
    context.multiprocessing.active_processes = {here}
    return context


def largest(number: int) -> int:
    """Return the largest of the numbers that the processes have."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number)))) if several() else number


def stop(message: str, code: int = 1) -> NoReturn:
    """End this process with a message and an exit code.

    One of several ends at once: the usual way out waits for the others, and they for this one.
    """
    here, count = place()
    if count > 1:
        message = (
            f"process {here} of {count} has stopped, and with it the run. {message}\n"
            "What was saved is as it was; to go on, start the same command again on all hosts."
        )
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if several():
        if code != 1:  # asked to stop: the others are too, and may still be saving
            with contextlib.suppress(Exception):
                _wait(1000 * HEARTBEAT)
        os._exit(code)
    sys.exit(code)


def _wait(longest: int = LONGEST) -> None:
    """Wait for all processes, through the coordinator: devices would lose their patience."""
    meet = multihost.get_barrier_sync_fn()
    meet(key=f"radapt_jax/{next(_turns)}", timeout_ms=longest)


def _from_main(told: bytes) -> bytes:
    """Return the bytes that process 0 has."""
    _wait()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(told))))
    padded = np.zeros(1 << (size - 1).bit_length(), np.uint8)  # few lengths are few programs
    padded[: len(told)] = np.frombuffer(told, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded))[:size].tobytes()


def _told(work: Callable[[], Any]) -> bytes:
    """Return the result of `work` and its error, one of which is None, as bytes."""
    try:
        return pickle.dumps((work(), None))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # of a class that does not survive it
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return pickle.dumps((None, error))


def _everywhere(error: Exception) -> Exception:
    error.everywhere = True  # type: ignore[attr-defined]
    return error


AXIS = "devices"


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Put a tree on all devices as the steps return it, so that they compile only once.

    Of several processes each puts its own copy on its own devices.
    """
    return jax.device_put(tree, sharding(devices))


def distribute(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Put a tree on the devices by its leading axis: to each device its part."""
    return jax.device_put(tree, sharding(devices, AXIS))


def sharding(devices: Sequence[jax.Device], *axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.array(own(devices)), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
