"""What a run tells whoever watches it.

An :class:`Event` is a snapshot, not a change: a listener may miss some and still be right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Event", "Listener", "ignore"]


@dataclass(frozen=True)
class Event:
    """How far one stage of a run is.

    Args:
        stage: ``"tune"``, ``"final"``, ``"columns"``, …: one bar each.
        done: Units finished; fractions while a unit is under way.
        total: Units in all; 0 where that is not known.
        text: A note, printed as a line of its own where not empty.
    """

    stage: str
    done: float
    total: float
    text: str = ""


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""
