"""The random streams of a trial: named, derived from the seed, saved and restored.

A stream depends on the workload's name, the seed and the stream's name, and on nothing else: no
arm, no process, no order of creation. Two arms with the same seed therefore see the same initial
weights, batches and noise (common random numbers).
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Streams", "seed_sequence"]


def _number(word: str) -> int:
    """Return 64 bits of the SHA-256 of ``word``: the same on every machine and run."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def seed_sequence(workload: str, seed: int, stream: str) -> np.random.SeedSequence:
    """Return the seed sequence of one stream.

    Args:
        workload: Name of the workload.
        seed: Seed of the trial.
        stream: Name of the stream.
    """
    import numpy as np

    return np.random.SeedSequence([_number(workload), seed, _number(stream)])


class Streams:
    """All random streams of one trial.

    Args:
        workload: Name of the workload.
        seed: Seed of the trial.
    """

    def __init__(self, workload: str, seed: int) -> None:
        self._workload = workload
        self._seed = seed
        self._torch: dict[str, torch.Generator] = {}
        self._numpy: dict[str, np.random.Generator] = {}
        # States of a checkpoint whose streams have not been asked for yet.
        self._waiting: dict[str, Any] = {}

    def _torch_seed(self, stream: str) -> int:
        sequence = seed_sequence(self._workload, self._seed, stream)
        return int(sequence.generate_state(1, "uint64")[0]) >> 1

    def generator(self, stream: str, device: str) -> torch.Generator:
        """Return the torch generator of ``stream`` on ``device``; the same object every time."""
        import torch

        key = f"torch/{device}/{stream}"
        if key not in self._torch:
            generator = torch.Generator(device=device)
            generator.manual_seed(self._torch_seed(stream))
            if key in self._waiting:
                generator.set_state(self._waiting.pop(key))
            self._torch[key] = generator
        return self._torch[key]

    def rng(self, stream: str) -> np.random.Generator:
        """Return the numpy generator of ``stream``; the same object every time."""
        import numpy as np

        key = f"numpy/{stream}"
        if key not in self._numpy:
            rng = np.random.default_rng(seed_sequence(self._workload, self._seed, stream))
            if key in self._waiting:
                rng.bit_generator.state = json.loads(self._waiting.pop(key))
            self._numpy[key] = rng
        return self._numpy[key]

    def seed_globals(self) -> None:
        """Seed the global generators, for what takes no generator (``nn.Dropout``)."""
        import numpy as np
        import torch

        torch.manual_seed(self._torch_seed("global"))
        np.random.seed(self._torch_seed("global numpy") % 2**32)  # noqa: NPY002
        random.seed(self._torch_seed("global python"))

    def state(self) -> dict[str, Any]:
        """Return the state of every stream; loads under ``weights_only=True``."""
        import torch

        states: dict[str, Any] = {key: g.get_state() for key, g in self._torch.items()}
        for key, rng in self._numpy.items():
            states[key] = json.dumps(rng.bit_generator.state)
        states["global/torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["global/cuda"] = torch.cuda.get_rng_state_all()
        return {**self._waiting, **states}

    def restore(self, states: dict[str, Any]) -> None:
        """Bring every stream back to ``states``, those asked for later too."""
        import torch

        self._waiting = dict(states)
        torch.set_rng_state(self._waiting.pop("global/torch"))
        cuda = self._waiting.pop("global/cuda", None)
        if cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(cuda)
        for key in [key for key in self._waiting if key in self._torch]:
            self._torch[key].set_state(self._waiting.pop(key))
        for key in [key for key in self._waiting if key in self._numpy]:
            self._numpy[key].bit_generator.state = json.loads(self._waiting.pop(key))
