"""The Visual Decathlon challenge: its score, table 1 of the paper, and submissions.

Start with `table`. `score` has the points, `published` the papers' results, `submission` answers
the test images, and `labels` scores such answers.
"""

from radapt_jax.decathlon.labels import score_submission
from radapt_jax.decathlon.score import decathlon_points, decathlon_score
from radapt_jax.decathlon.table import decathlon_table, points_table

__all__ = [
    "decathlon_points",
    "decathlon_score",
    "decathlon_table",
    "points_table",
    "score_submission",
]
