"""Sphinx configuration."""

from __future__ import annotations

from importlib.metadata import version as distribution_version

project = "gradworks"
author = "The gradworks developers"
copyright = "2026, the gradworks developers"
release = distribution_version("gradworks")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"gradworks {release}"
suppress_warnings = ["ref.python"]
