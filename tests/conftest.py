"""Property tests try the same examples in every run, so that a red run is a change of ours.

``HYPOTHESIS_PROFILE=explore`` draws new ones: that is how the counterexamples are found.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
