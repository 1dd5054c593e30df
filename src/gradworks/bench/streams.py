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
        states: dict[str, Any] = {key: g.get_state() for key, g in self._torch.items()}
        for key, rng in self._numpy.items():
            states[key] = json.dumps(rng.bit_generator.state)
        return {**self._waiting, **states, **_globals()}

    def restore(self, states: dict[str, Any]) -> None:
        """Bring every stream back to ``states``, those asked for later too."""
        self._waiting = {k: v for k, v in states.items() if not k.startswith("global/")}
        _restore_globals(states)
        for key in [key for key in self._waiting if key in self._torch]:
            self._torch[key].set_state(self._waiting.pop(key))
        for key in [key for key in self._waiting if key in self._numpy]:
            self._numpy[key].bit_generator.state = json.loads(self._waiting.pop(key))


def _globals() -> dict[str, Any]:
    """Return the states of the global generators of torch, numpy and Python."""
    import numpy as np
    import torch

    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {
        "global/torch": torch.get_rng_state(),
        "global/numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "global/python": [version, torch.tensor(words, dtype=torch.int64), gauss],
    }
    if torch.cuda.is_available():
        states["global/cuda"] = torch.cuda.get_rng_state_all()
    return states


def _restore_globals(states: dict[str, Any]) -> None:
    """Bring the global generators back."""
    import numpy as np
    import torch

    torch.set_rng_state(states["global/torch"])
    name, keys, *rest = states["global/numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, words, gauss = states["global/python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    if "global/cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["global/cuda"])
