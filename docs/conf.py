"""Sphinx configuration."""

from importlib.metadata import version as installed_version

project = "Sidestage"
author = "The Sidestage authors"
copyright = "2026, The Sidestage authors"
release = version = installed_version("sidestage")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Sidestage {version}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

nitpicky = True
# Only references into this package must resolve: the build fetches no inventory of other projects,
# so that it works without a network.
nitpick_ignore_regex = [(r"py:.*", r"(?!sidestage\b).*")]
