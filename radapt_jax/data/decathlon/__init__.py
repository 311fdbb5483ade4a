"""The Visual Decathlon's data: facts about its ten domains, and preparation from its archives.

Start with `facts`. `archives` reads the official archives in place, and `prepare` turns them into
datasets that `sources.decathlon` opens.
"""

from radapt_jax.data.decathlon.facts import DECATHLON, decathlon_name

__all__ = ["DECATHLON", "decathlon_name"]
