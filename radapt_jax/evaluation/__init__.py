"""Evaluation: top-1 of one domain, and of all domains of a family.

Start with `evaluate.evaluate_family`. `step` is the compiled step, and `result` one line of a
table.
"""

from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.evaluation.result import Result

__all__ = ["Result", "evaluate_family"]
