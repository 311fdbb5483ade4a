"""Residual adapters in JAX: one network with shared weights, and a small adapter per domain."""

from radapt_jax.checkpoint import Shared
from radapt_jax.domains import DECATHLON, Domain
from radapt_jax.family import Family
from radapt_jax.member import Member
from radapt_jax.models import ModelSpec, resnet26
from radapt_jax.models.initial import initial_variables
from radapt_jax.original import import_original

__version__ = "0.1.0"

__all__ = [
    "DECATHLON",
    "Domain",
    "Family",
    "Member",
    "ModelSpec",
    "Shared",
    "import_original",
    "initial_variables",
    "resnet26",
]
