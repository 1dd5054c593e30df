"""How many times as long as the peer: two functions timed against each other in one process.

Times of a shared machine drift by tens of percent within seconds, so no time stands alone here.
Both sides run in blocks ``A B B A``: a drift that is linear inside a block cancels in its ratio.
The estimate is the median of the ratios of the blocks, with a bootstrap interval over blocks; a
control block ``B B B B``, the peer against itself, follows each of them and shows what the
machine makes of two equal things. A ratio may be quoted only where its interval excludes 1, the
control's covers 1, and there are enough blocks for either to mean something.
"""

from __future__ import annotations

from gradworks.bench.timing.comparing import compare
from gradworks.bench.timing.figures import FOLDER, Timing
from gradworks.bench.timing.memory import copy_pair, roofline

__all__ = ["FOLDER", "Timing", "compare", "copy_pair", "roofline"]
