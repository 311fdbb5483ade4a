"""The page of one or several finished runs: one HTML file that needs nothing beside it.

`page.write_page` reads runs (`runs`), evaluates them (`judged`), draws (`pictures`, `training`,
`layers` and `ranks`, in the look of `look`) and fills the template page.html.
"""

from radapt_jax.report.page.judged import Judged, judge
from radapt_jax.report.page.page import check_page, write_page

__all__ = ["Judged", "check_page", "judge", "write_page"]
