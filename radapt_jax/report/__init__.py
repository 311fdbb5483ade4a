"""Tables and pictures of results.

Start with `results.table`. `render` writes a table as text, Markdown, CSV or LaTeX, `plots`
draws, and `write` puts all of it into a workdir.
"""

from radapt_jax.report.results import table

__all__ = ["table"]
