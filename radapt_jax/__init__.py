"""Residual adapters in JAX: one network with shared weights, and a small adapter per domain."""

from radapt_jax.adapters import (
    AffineMask,
    Controller,
    ConvAdapter,
    ConvLora,
    Joint,
    JointConvLora,
    JointModulation,
    LowRank,
    LowRankModulation,
    Mask,
    Modulation,
    NoAdapter,
    Options,
    Parallel,
    RandomBasis,
    Series,
    Vera,
)
from radapt_jax.compress.family import compress_family, svd
from radapt_jax.compress.join import join
from radapt_jax.compress.moments import moments_of
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.convert.efficientnet_lite import family_of_efficientnet_lite
from radapt_jax.convert.export_torch import export_torch
from radapt_jax.convert.linen import family_of_network
from radapt_jax.convert.original import family_of_original, import_original
from radapt_jax.convert.resnet import family_of_resnet
from radapt_jax.convert.resnet_cifar import family_of_resnet_cifar
from radapt_jax.data.arrays import DomainOptions
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.domain import Domain
from radapt_jax.decathlon.published import published
from radapt_jax.decathlon.score import decathlon_points, decathlon_score
from radapt_jax.decathlon.table import decathlon_table, points_table
from radapt_jax.evaluation.evaluate import evaluate
from radapt_jax.evaluation.statistics import renew_statistics
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.family.shared import Shared
from radapt_jax.models import Placement, ResNet26
from radapt_jax.models.fold import fold
from radapt_jax.models.init import initial_variables
from radapt_jax.models.own.adapt import adapt
from radapt_jax.models.spec import ModelSpec
from radapt_jax.models.without_family import resnet26
from radapt_jax.train.fit import fit
from radapt_jax.train.history import History
from radapt_jax.train.options import TrainOptions
from radapt_jax.version import __version__

__all__ = [
    "DECATHLON",
    "AffineMask",
    "Controller",
    "ConvAdapter",
    "ConvLora",
    "Domain",
    "DomainOptions",
    "Family",
    "History",
    "Joint",
    "JointConvLora",
    "JointModulation",
    "LowRank",
    "LowRankModulation",
    "Mask",
    "Member",
    "ModelSpec",
    "Modulation",
    "NoAdapter",
    "Options",
    "Parallel",
    "Placement",
    "RandomBasis",
    "ResNet26",
    "Series",
    "Shared",
    "TrainOptions",
    "Vera",
    "__version__",
    "adapt",
    "compress_family",
    "decathlon_points",
    "decathlon_score",
    "decathlon_table",
    "evaluate",
    "export_torch",
    "family_of_efficientnet_lite",
    "family_of_network",
    "family_of_original",
    "family_of_resnet",
    "family_of_resnet_cifar",
    "fit",
    "fold",
    "import_original",
    "initial_variables",
    "join",
    "moments_of",
    "points_table",
    "published",
    "rank_rule",
    "renew_statistics",
    "resnet26",
    "svd",
]
