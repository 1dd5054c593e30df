"""Checkpoint files: whole or absent, the newest two a trial, checked by their hash.

A file is written beside its final name, synced, renamed, and the folder synced; only then does a
row of the store point to it. What a kill leaves behind is a file without a row, which is swept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from pathlib import Path

__all__ = ["CheckpointFolder"]


class CheckpointFolder:
    """The files under one folder, a subfolder a trial.

    Args:
        root: Folder beside the store; created with the first checkpoint.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, trial_id: int, step: int, data: bytes) -> tuple[str, str]:
        """Write a checkpoint and return its path below the root and its SHA-256.

        A full or read-only disk is an OSError, and nothing is left behind.

        Args:
            trial_id: Row of the trial.
            step: Step after which the state was taken.
            data: The serialised state.
        """
        folder = self.root / str(trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        # A worker that lost its lease may write at the same time: names never collide.
        final = folder / f"{step:09d}-{uuid.uuid4().hex[:8]}.pt"
        draft = final.with_suffix(".tmp")
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(final)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return f"{trial_id}/{final.name}", hashlib.sha256(data).hexdigest()

    def read(self, path: str, sha256: str) -> bytes | None:
        """Return a checkpoint's bytes, or None if it is missing or not what was written."""
        try:
            data = (self.root / path).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def remove(self, path: str) -> None:
        """Remove one file."""
        (self.root / path).unlink(missing_ok=True)

    def drop(self, trial_id: int) -> None:
        """Remove all files of a trial, and the root once it is empty."""
        shutil.rmtree(self.root / str(trial_id), ignore_errors=True)
        with contextlib.suppress(OSError):
            self.root.rmdir()

    def trials(self) -> list[str]:
        """Return the names of the subfolders."""
        try:
            return [entry.name for entry in self.root.iterdir() if entry.name.isdigit()]
        except OSError:
            return []
