"""Which norm follows which layer, read off a traced program in which both are marked.

Names are marks that `jax.ad_checkpoint.checkpoint_name` leaves: on the outputs of layers and on the
inputs of norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LAYER, NORM = "radapt_jax layer ", "radapt_jax norm "
TRANSPARENT = frozenset({"checkpoint", "remat", "remat2"})  # what is inside is as if outside


def places(program: Any) -> dict[str, set[str]]:
    """Return the primitives around each layer and norm, by its path."""
    found: dict[str, set[str]] = {}
    for level, around in _levels(program, frozenset()):
        for equation in level.eqns:
            if mark := _mark(equation):
                path = mark.removeprefix(LAYER).removeprefix(NORM)
                found.setdefault(path, set()).update(around)
    return found


def pairs(program: Any) -> dict[str, str]:
    """Return the norm of each layer whose output nothing else takes, if it takes nothing else."""
    takers: dict[str, set[str]] = {}
    givers: dict[str, set[str]] = {}
    for level, _ in _levels(program, frozenset()):
        uses: dict[int, list[str]] = {}
        made: dict[int, str] = {}
        for equation in level.eqns:
            mark = _mark(equation)
            for value in equation.invars:
                uses.setdefault(id(value), []).append(mark)
            for value in equation.outvars:
                made[id(value)] = mark
        for value in level.outvars:
            uses.setdefault(id(value), []).append("")
        for equation in level.eqns:
            mark = _mark(equation)
            if mark.startswith(LAYER):
                takers.setdefault(mark, set()).update(uses.get(id(equation.outvars[0]), [""]))
            elif mark.startswith(NORM):
                givers.setdefault(mark, set()).add(made.get(id(equation.invars[0]), ""))
    return {
        layer.removeprefix(LAYER): norm.removeprefix(NORM)
        for layer, norms in takers.items()
        for norm in norms
        if norms == {norm} and givers.get(norm) == {layer}
    }


def _mark(equation: Any) -> str:
    name = equation.params.get("name") if equation.primitive.name == "name" else None
    return name if isinstance(name, str) and name.startswith((LAYER, NORM)) else ""


def _levels(program: Any, around: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """Yield a program and those inside its equations, each with the primitives around it."""
    yield program, around
    for equation in program.eqns:
        for parameter in equation.params.values():
            several = parameter if isinstance(parameter, tuple | list) else (parameter,)
            for inner in several:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _levels(inner, around | {equation.primitive.name})
