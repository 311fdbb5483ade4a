"""Training of one domain or of several at once, without config files.

Start with `loop.train_domains`. `options` and `job` say what is trained and how, `step` is one
optimiser step, `devices` runs it where it belongs, and `progress` evaluates, saves and goes on.
`place` is where states and metrics are kept.
"""

from radapt_jax.train.job import Job
from radapt_jax.train.loop import train_domains
from radapt_jax.train.options import TrainOptions
from radapt_jax.train.signals import Stopped

__all__ = ["Job", "Stopped", "TrainOptions", "train_domains"]
