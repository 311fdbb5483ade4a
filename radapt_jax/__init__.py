"""Residual adapters in JAX: one network with shared weights, and a small adapter per domain."""

from radapt_jax.checkpoint import Shared
from radapt_jax.compress import svd
from radapt_jax.compression import compress_family, join, rank_rule
from radapt_jax.decathlon_table import decathlon_table, points_table
from radapt_jax.domains import DECATHLON, Domain
from radapt_jax.family import Family
from radapt_jax.fuse import fold
from radapt_jax.member import Member
from radapt_jax.models import ModelSpec, resnet26
from radapt_jax.models.initial import initial_variables
from radapt_jax.original import family_of_original, import_original
from radapt_jax.published import published
from radapt_jax.score import decathlon_points, decathlon_score
from radapt_jax.version import __version__

__all__ = [
    "DECATHLON",
    "Domain",
    "Family",
    "Member",
    "ModelSpec",
    "Shared",
    "__version__",
    "compress_family",
    "decathlon_points",
    "decathlon_score",
    "decathlon_table",
    "family_of_original",
    "fold",
    "import_original",
    "initial_variables",
    "join",
    "points_table",
    "published",
    "rank_rule",
    "resnet26",
    "svd",
]
