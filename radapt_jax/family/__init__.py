"""The user's object: shared weights, and a bank of domains that were trained on them.

Start with `family.Family`. `shared` and `member` are what it holds, `card` and `checkpoint` save
it, `adapter_file` is one domain as a file, and `predict` runs images of one domain or of many.
"""

from radapt_jax.family.family import Family
from radapt_jax.family.folded import FoldedDomain
from radapt_jax.family.member import Member
from radapt_jax.family.shared import Shared

__all__ = ["Family", "FoldedDomain", "Member", "Shared"]
