"""The catalogue as a static site: an index, a page a paper, a feed; opens from disk.

Nothing is loaded from elsewhere. The site is written to a temporary folder and swapped in as a
whole.
"""

from __future__ import annotations

from gradworks.report.site.building import Pages, build
from gradworks.report.site.serving import serve

__all__ = ["Pages", "build", "serve"]
