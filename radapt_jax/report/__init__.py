"""Tables and plots of results.

Start with `results.table`. `render` turns a table into text, Markdown, CSV or LaTeX, `plots`
draws, and `write` puts everything into a workdir.
"""

from radapt_jax.report.results import table

__all__ = ["table"]
