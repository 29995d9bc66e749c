"""Sphinx configuration."""

from sidestage import __version__

project = "Sidestage"
author = "The Sidestage authors"
copyright = "2026, The Sidestage authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Sidestage {version}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

nitpicky = True
# Only references into this package must resolve: the build works offline, so it has no inventories
# of other projects.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!sidestage\b).*"),
    # These occur in signatures only: type variables, the files of requests and connections, and
    # the context of ``expected_errors``.
    (r"py:class", r"sidestage\.[a-z_.]+\.(R|S|Responder|StreamWriter|ExpectedErrors)"),
]
