"""The documentation site: `make docs` writes it to site/, and fails on any warning."""

import re
from pathlib import Path

from radapt_jax.version import __version__

project = "radapt_jax"
version = release = __version__
extensions = [
    "myst_parser",  # pages are Markdown, as they are read in the repository
    "sphinx.ext.autodoc",  # the API, from docstrings
    "sphinx.ext.napoleon",  # with their "Args:" and "Raises:"
    "sphinx_copybutton",
]
default_role = "literal"  # what docstrings mean by single backticks
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"radapt_jax {version}"
html_show_copyright = False

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the text tells types and shapes
napoleon_numpy_docstring = False

ROOT = Path(__file__).parents[1]
PAGES = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
LINK = re.compile(r"(?<=\]\()[\w./-]+")


def setup(app):
    app.connect("source-read", _put_before)


def _put_before(app, page, source):
    """Let a page begin with the file of the repository's root that it stands for.

    The index has its list of pages below; the others only point to that file, for GitHub's readers.
    """
    if page in PAGES:
        text = (ROOT / PAGES[page]).read_text()
        below = source[0] if page == "index" else ""
        source[0] = LINK.sub(lambda link: _seen_from_docs(link[0]), text) + "\n" + below


def _seen_from_docs(target):
    """Return the target of a link in the repository's root as a page in docs/ has it."""
    pages = {name: f"{page}.md" for page, name in PAGES.items()}
    if target in pages or target.startswith("docs/"):
        return pages.get(target, target.removeprefix("docs/"))
    return f"../{target}" if (ROOT / target).exists() else target
