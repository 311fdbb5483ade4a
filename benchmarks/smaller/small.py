"""The ways to make a domain smaller that are compared, and what a domain takes then."""

import dataclasses

import numpy as np

import radapt_jax as rj
from radapt_jax.adapters.base import NAME, by_convolution
from radapt_jax.compress.replace import with_leaves
from radapt_jax.compress.which import alphas_of
from radapt_jax.family import packing
from radapt_jax.family.rounding import Rounding
from radapt_jax.utils import trees

HALF, QUARTER = 0.5, 0.25


@dataclasses.dataclass(frozen=True)
class Way:
    """A kind to compress to ("": adapters stay dense), how ranks are chosen and fitted, and bits.

    `bits` are those of adapters in a file; 32: float32, and the head and norms as well. `vectors`
    are those of norms.
    """

    kind: str = ""
    share: float = HALF
    fit: str = "svd"
    ranks: str = "uniform"
    bits: int = 32
    vectors: int = 8

    def apply(self, dense, moments):
        """Return a family whose domains with adapters are smaller; nothing is trained."""
        names = list(alphas_of(dense))
        small = dense
        if self.kind:
            rule = rj.rank_rule(self.ranks, share=self.share)
            by = None if self.fit == "svd" else moments
            small = rj.compress_family(dense, self.kind, rule, moments=by, fit=self.fit)
        if self.bits < 32:
            made = [
                small[name].rounded(Rounding(self.bits, vectors=self.vectors)) for name in names
            ]
            small = rj.Family(small.shared, made)
        return small


def _cut(kind, fit, share, **more):
    return Way(kind, share, fit, **more)


WAYS: dict[str, Way] = {
    "dense": Way(),
    **{f"int{bits}": Way(bits=bits) for bits in (8, 4, 3, 2)},
    **{
        f"{kind} {fit}, K = C/{round(1 / share)}": _cut(kind, fit, share)
        for share in (HALF, QUARTER)
        for kind, fit in (
            *(("joint", fit) for fit in ("svd", "whitened", "alternating")),
            *(("low_rank", fit) for fit in ("svd", "whitened")),
        )
    },
    "joint alternating, ranks by budget": Way("joint", fit="alternating", ranks="budget"),
    "norms int8 alone": Way(bits=16),
    "int4, norms float16": Way(bits=4, vectors=16),
    "joint alternating, K = C/2, int4": Way("joint", fit="alternating", bits=4),
    "joint alternating, K = C/2, int2": Way("joint", fit="alternating", bits=2),
    "joint alternating, K = C/4, int4": Way("joint", QUARTER, "alternating", bits=4),
    "low_rank whitened, K = C/2, int4": Way("low_rank", fit="whitened", bits=4),
}


def as_dense(dense, small):
    """Return the family of `dense` with α = β γᵀ of a smaller one, which computes the same.

    Networks of all ways are one then, and so is the program that is compiled for them.
    """
    shared = trees.flatten(small.shared.params)
    members = []
    for name in alphas_of(dense):
        member = small[name]
        leaves = trees.flatten(member.variables["adapters"])
        alphas = by_convolution(leaves, "kernel")
        gammas = by_convolution(leaves, "gamma")
        betas = by_convolution({**shared, **leaves}, "beta")
        alphas |= {conv: np.asarray(betas[conv]) @ gamma for conv, gamma in gammas.items()}
        placed = {f"{conv}/{NAME}/kernel": np.asarray(it) for conv, it in alphas.items()}
        drop = tuple(f"/{NAME}/{leaf}" for leaf in ("beta", "gamma"))
        adapters = with_leaves(member.variables["adapters"], placed, drop=drop)
        own = {"adapters": adapters, "batch_stats": member.variables["batch_stats"]}
        members.append(dense[name].changed(**own))
    return rj.Family(dense.shared, members)


def bytes_of(member):
    """Return the bytes of a domain's variables in its file: without its head, and of its head."""
    adapters = {key: it for key, it in member.variables["adapters"].items() if key != "head"}
    headless = dataclasses.replace(member, variables={**member.variables, "adapters": adapters})
    without, whole = (
        sum(it.nbytes for it in packing.packed(one).values()) for one in (headless, member)
    )
    return without, whole - without
