"""Sources of images: where images come from, one file for each; `registry` lists them all.

Start with `source`: a `Source` names the classes of a domain and reads the examples of its splits.
"""

from radapt_jax.data.sources.registry import SOURCES
from radapt_jax.data.sources.source import Example, Source

__all__ = ["SOURCES", "Example", "Source"]
