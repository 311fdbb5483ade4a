"""Runs from a config file: every domain of it trained, saved and evaluated.

Start with `run.train_and_evaluate`. `config` turns a config into options, `start` finds where a
domain starts, `resume` holds a run to what it began with, and `failures` lets other domains go
on.
"""

from radapt_jax.experiment.run import train_and_evaluate

__all__ = ["train_and_evaluate"]
