"""``python -m gradworks``."""

from __future__ import annotations

from gradworks.cli import main

raise SystemExit(main())
