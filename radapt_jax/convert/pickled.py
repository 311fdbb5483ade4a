"""Pickles as plain data: an interpreter of their opcodes that has nothing to call.

Python's own unpickler looks up what a pickle names and calls it. Overriding its lookup leaves the
rest of it in place: it sets attributes of what it was given, hashes keys of any depth, and makes
room for the highest memo index that a pickle declares. Here a name stays a name (`Global`), an
object becomes a `Stub` that keeps what it is told, and the few calls that are known go to `Calls`.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MOST_OPCODES = 5_000_000  # some hundred times those of a large network
SHOWN = 100  # characters of a name in an error

LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Global(NamedTuple):
    """A name that a pickle refers to, such as `collections.OrderedDict`; nothing is looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return short(f"{self.module}.{self.name}")


@dataclasses.dataclass(eq=False)
class Stub:
    """An object of a class that is not there: the class's name, and the state it was given."""

    kind: Global
    state: dict[str, Any] = dataclasses.field(default_factory=dict)


class Calls(NamedTuple):
    """What a pickle may refer to.

    known: functions and classes that may be called, and what gives the value in their place.
    is_stub: whether a name is that of a class whose objects become stubs.
    is_name: whether a name may be held as data, without being called.
    persistent: what an object is that a pickle keeps outside of itself, by its id.
    """

    known: Mapping[str, Callable[..., Any]]
    is_stub: Callable[[Global], bool]
    is_name: Callable[[Global], bool]
    persistent: Callable[[Any], Any]


def short(name: str) -> str:
    """Return a name of a file for an error: short, and without control characters."""
    return name[:SHOWN].encode("unicode_escape").decode()


def read(stream: BinaryIO, calls: Calls) -> Any:
    """Return the value of the pickle that begins here, and leave the stream behind it.

    Raises:
      ValueError: it is no pickle, is cut, or refers to or does what plain data does not.
    """
    machine = _Machine(calls)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MOST_OPCODES:
            raise ValueError(f"found more than {MOST_OPCODES:,} opcodes in a pickle.")
        machine.step(opcode.name, argument)
    return machine.pop()


class _Machine:
    """The stack and memo of a pickle."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the marks
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in LITERALS:
            self.stack.append(argument)
        elif opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode]())
        elif opcode in TUPLES:
            self.stack.append(tuple([self.pop() for _ in range(TUPLES[opcode])][::-1]))
        elif (run := getattr(self, f"op_{opcode.lower()}", None)) is not None:
            run(argument)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"found opcode {opcode} in a pickle; expected none but for data.")

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("found a pickle that takes more values than it made.")
        return self.stack.pop()

    def top(self) -> Any:
        self.stack.append(self.pop())
        return self.stack[-1]

    def marked(self) -> list[Any]:
        """Return what was made since the last mark."""
        if not self.below:
            raise ValueError("found a pickle that goes back to a mark it never set.")
        found, self.stack = self.stack, self.below.pop()
        return found

    def op_mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def op_pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def op_pop_mark(self, _: Any) -> None:
        self.marked()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.top())

    # The memo

    def op_binput(self, index: int) -> None:
        self.memo[index] = self.top()

    op_long_binput = op_binput

    def op_memoize(self, _: Any) -> None:
        self.op_binput(len(self.memo))

    def op_binget(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"found a pickle that refers to its value {index}, which it lacks.")
        self.stack.append(self.memo[index])

    op_long_binget = op_binget

    # Containers

    def op_tuple(self, _: Any) -> None:
        found = tuple(self.marked())
        self.stack.append(found)

    def op_append(self, _: Any) -> None:
        self.extend([self.pop()])

    def op_appends(self, _: Any) -> None:
        self.extend(self.marked())

    def extend(self, values: list[Any]) -> None:
        _expect(self.top(), list, "what items are put into").extend(values)

    def op_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.update([key, value])

    def op_setitems(self, _: Any) -> None:
        self.update(self.marked())

    def update(self, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise ValueError("found a key without a value in a pickle.")
        keys = map(key, pairs[::2])
        _expect(self.top(), dict, "what keys are put into").update(
            zip(keys, pairs[1::2], strict=True)
        )

    def op_additems(self, _: Any) -> None:
        found = self.marked()
        _expect(self.top(), set, "what members are put into").update(map(key, found))

    # Names and objects

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.refer(Global(module, name))

    def op_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.refer(Global(_expect(module, str, "a module"), _expect(name, str, "a name")))

    def refer(self, found: Global) -> None:
        calls = self.calls
        dotted = f"{found.module}.{found.name}"
        if dotted not in calls.known and not calls.is_name(found) and not calls.is_stub(found):
            raise _refusal(found)
        self.stack.append(found)

    def op_reduce(self, _: Any) -> None:
        arguments, function = _expect(self.pop(), tuple, "the arguments of a call"), self.pop()
        function = _expect(function, Global, "what is called")
        make = self.calls.known.get(f"{function.module}.{function.name}")
        if make is None:
            raise _refusal(function, "a call of ")
        try:
            self.stack.append(make(*arguments))
        except TypeError as error:
            raise ValueError(f"found {function} with arguments that it does not have.") from error

    def op_newobj(self, _: Any) -> None:
        arguments, kind = self.pop(), _expect(self.pop(), Global, "the class of an object")
        if arguments != () or not self.calls.is_stub(kind):
            raise _refusal(kind, "an object with arguments of " if arguments else "an object of ")
        self.stack.append(Stub(kind))

    def op_build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Stub):
            state = _expect(state, dict, "the state of an object")
            if not all(isinstance(name, str) for name in state):
                raise ValueError(f"found attributes of {target.kind} that have no names.")
            target.state.update(state)
        elif not isinstance(target, dict | np.ndarray):  # what is remembered beside the values
            raise ValueError(f"found a state for {_kind(target)}; expected one for an object.")

    def op_binpersid(self, _: Any) -> None:
        self.stack.append(self.calls.persistent(self.pop()))


def _refusal(found: Global, what: str = "") -> ValueError:
    return ValueError(
        f"found {what}{found}; expected only tensors, plain containers and torch.nn modules."
    )


def _kind(value: Any) -> str:
    return str(value) if isinstance(value, Global) else type(value).__name__


def _expect(value: Any, kind: type, what: str) -> Any:
    """Return a value of exactly this kind; values are not shown, as they may have no end."""
    if type(value) is not kind:
        raise ValueError(f"found {_kind(value)} as {what}; expected {kind.__name__}.")
    return value


def key(value: Any) -> str | int:
    """Return a key; tuples are none, as hashing some takes for ever."""
    if not isinstance(value, str | int):
        raise ValueError(f"found a key that is {_kind(value)}; expected text or a number.")
    return value
