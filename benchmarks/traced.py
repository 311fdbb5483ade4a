"""Our step, traced: what XLA's operations are, and when each of them runs.

A process of its own, driven by benchmarks/shares.py. It answers what benchmarks/ours.py does and

    {"do": "shares", "n": 8}    the share of each kind of work in n steps

XLA writes the compiled programs where XLA_FLAGS says (--xla_dump_to), and names their operations
in JAX's trace.
"""

import collections
import os
import re
import tempfile
from pathlib import Path

import jax
import ours
import worker

from radapt_jax.utils.memory import keep_freed_memory

CONVOLUTION, PRODUCT, COPY = "convolutions", "products", "copies"
ARITHMETIC, DISPATCH = "norms, ReLUs, sums", "dispatch"
KINDS = (CONVOLUTION, ARITHMETIC, PRODUCT, COPY, DISPATCH)
MOVES = {
    *("copy", "transpose", "concatenate", "pad", "slice", "dynamic-slice", "reverse", "gather"),
    *("dynamic-update-slice", "bitcast", "reshape", "broadcast", "iota", "convert", "parameter"),
    *("constant", "tuple", "get-tuple-element", "fusion"),
}
LAYER = re.compile(r"/(conv\d*|stem|shortcut\w*)/")  # a convolution with its adapters
COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{$")
OPERATION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = .*?\s([\w\-]+)\(")


def kinds_of(text):
    """Return the kind of each operation of a compiled program, by name; calls have none.

    Args:
      text: the program as XLA writes it after its optimisations.
    """
    inside, found, computation = collections.defaultdict(list), {}, None
    for line in text.splitlines():
        if not line.startswith(" "):
            if header := COMPUTATION.match(line):
                computation = header[1]
        elif operation := OPERATION.match(line):
            name, opcode = operation.groups()
            inside[computation].append(opcode)
            found[name] = opcode, line
    kinds = {}
    for name, (opcode, line) in found.items():
        called = re.search(r"calls=%?([\w.\-]+)", line)
        path = re.search(r'op_name="([^"]*)"', line)
        if opcode != "call":
            opcodes = {opcode, *(inside[called[1]] if called else ())}
            kinds[name] = _kind(opcodes, path[1] if path else "")
    return kinds


def _kind(opcodes, path):
    """Return the kind of an operation, of what it computes and where in the network that is."""
    of_filter = LAYER.search(path) and "/norm" not in path and "(_product)" not in path
    if "convolution" in opcodes or ("dot" in opcodes and of_filter):
        return CONVOLUTION  # Winograd's is of products
    if "dot" in opcodes:
        return PRODUCT
    if opcodes <= MOVES:
        return COPY
    return CONVOLUTION if of_filter else ARITHMETIC


def shares_of(intervals, kinds):
    """Return the share of each kind in the time from the first start to the last end.

    Where several operations run at once, the time is divided evenly; where none does, it is
    dispatch.

    Args:
      intervals: (start, end, name of the operation).
      kinds: by name.
    """
    marks = sorted(
        [(start, 1, name) for start, _, name in intervals]
        + [(end, -1, name) for _, end, name in intervals]
    )
    running, spent, before = collections.Counter(), collections.Counter(), marks[0][0]
    for now, change, name in marks:
        active = [kinds[it] for it, count in running.items() if count > 0] or [DISPATCH]
        for kind in active:
            spent[kind] += (now - before) / len(active)
        running[name] += change
        before = now
    whole = marks[-1][0] - marks[0][0]
    return {kind: spent[kind] / whole for kind in KINDS}


def intervals_of(trace, names):
    """Return when operations of these names ran, in nanoseconds.

    An operation may start on one thread and end on another, where the trace has an event "end".
    """
    starts, ends = collections.defaultdict(list), collections.defaultdict(list)
    lines = (line for plane in trace.planes for line in plane.lines)
    for event in (event for line in lines for event in line.events):
        if event.name in names:
            starts[event.name].append((event.start_ns, event.start_ns + event.duration_ns))
        elif event.name.startswith("end: "):
            ends[event.name.removeprefix("end: ")].append(event.start_ns)
    found = []
    for name, times in starts.items():
        last = sorted(ends[name])
        for index, (start, end) in enumerate(sorted(times)):
            whole = len(last) == len(times)
            found.append((start, max(end, last[index]) if whole else end, name))
    return found


class Traced(ours.Ours):
    def shares(self, n):
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                for _ in range(n):
                    self.step()
            (path,) = Path(folder).rglob("*.xplane.pb")
            trace = jax.profiler.ProfileData.from_file(str(path))
        kinds = kinds_of(_program())
        return shares_of(intervals_of(trace, kinds), kinds)


def _program():
    """Return the largest program that was compiled: the step."""
    folder = re.search(r"--xla_dump_to=(\S+)", os.environ["XLA_FLAGS"])[1]
    programs = Path(folder).glob("*cpu_after_optimizations.txt")
    return max(programs, key=lambda it: it.stat().st_size).read_text()


if __name__ == "__main__":
    keep_freed_memory()  # as train.py does
    worker.answer(Traced())
