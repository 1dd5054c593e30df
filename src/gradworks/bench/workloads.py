"""Training problems by name: real data, a model, a loss and the metric that counts.

``NAMES`` lists them without importing torch. A user's own is a function of theirs, named
``module:function`` or ``path.py:function``, that returns a :class:`Problem`.

The test split of a set is the same for every seed: what tuning saw is never tested on. The seed
divides the rest into training and validation data, 60/20/20 in all, classes balanced. Inputs are
standardised with the training data's own mean and deviation. Text is split by sections that share
no paragraph, once for all seeds: few sections are held out, and how hard these are would differ
more than optimizers do.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gradworks.bench import data
from gradworks.bench.targets import UnknownTarget, resolve

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, nn

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = [
    "NAMES",
    "Problem",
    "UnknownTarget",
    "curvature_target",
    "describe",
    "problem",
    "resolve",
    "seconds_a_step",
    "split_rows",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Everything that a trial needs but the optimizer.

    Args:
        name: Short name.
        model: Makes the model; its weights are drawn from the generator and from nothing else.
        train: Inputs and targets; the first dimension counts examples.
        valid: Likewise, for tuning.
        test: Likewise, opened once.
        loss_fn: ``loss_fn(output, target)``, a scalar, the mean over examples.
        metric: ``metric(output, target)`` over a whole split, a scalar.
        metric_name: What the metric is called in tables.
        direction: Which way the metric is better.
        batch_size: Examples a step.
        steps: Budget of a trial.
        data: Names of the data sets, as ``gradworks data list`` shows them.
        train_rows: Training rows that the evaluation at the end looks at, evenly spread; None takes
            all.

    Raises:
        ValueError: If a split is empty or its inputs and targets differ in length, or a number is
            below 1.
    """

    name: str
    model: Callable[[Generator], nn.Module]
    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    metric_name: str = "error"
    direction: Literal["lower", "higher"] = "lower"
    batch_size: int = 64
    steps: int = 100
    data: tuple[str, ...] = ()
    train_rows: int | None = None

    def __post_init__(self) -> None:
        for split in ("train", "valid", "test"):
            inputs, targets = getattr(self, split)
            if len(inputs) != len(targets) or len(inputs) == 0:
                raise ValueError(
                    f"problem {self.name!r}: {split} must hold as many inputs as targets and at "
                    f"least one, got {len(inputs)} and {len(targets)}"
                )
        for number in ("batch_size", "steps", "train_rows"):
            value = getattr(self, number)
            if value is not None and value < 1:
                raise ValueError(f"problem {self.name!r}: {number} must be at least 1, got {value}")
        if self.direction not in ("lower", "higher"):
            raise ValueError(
                f"problem {self.name!r}: direction must be 'lower' or 'higher', "
                f"got {self.direction!r}"
            )


@dataclass(frozen=True)
class _Recipe:
    """One named workload as data.

    ``model`` names a builder of ``gradworks.bench.models``, ``seconds`` is what a trial took on one
    core when it was written, for plans only.
    """

    what: str
    read: Callable[[], tuple[Any, Array, data.Meta]]
    data: tuple[str, ...]
    model: str
    model_args: tuple[Any, ...]
    kind: Literal["classes", "binary", "imbalanced", "regression", "text"] = "classes"
    image: int = 0
    batch_size: int = 64
    steps: int = 100
    seconds: float = 0.5
    model_options: tuple[tuple[str, Any], ...] = ()


_RECIPES = {
    "digits-mlp": _Recipe(
        "8x8 digits, two hidden layers of 64",
        data.digits, ("digits",), "mlp", (64, (64, 64), 10), steps=170, seconds=0.3,
    ),
    "digits-layernorm": _Recipe(
        "8x8 digits, two hidden layers of 64 with layer normalization",
        data.digits, ("digits",), "mlp", (64, (64, 64), 10), steps=170, seconds=0.3,
        model_options=(("layer_norm", True),),
    ),
    "digits-cnn": _Recipe(
        "8x8 digits, three convolutions with batch normalization, 6 epochs",
        data.digits, ("digits",), "cnn", ((16, 32, 32), (1, 2, 1), 10),
        image=8, steps=100, seconds=0.6,
    ),
    "digits-resnet": _Recipe(
        "8x8 digits, residual network of eight convolutions, 6 epochs",
        data.digits, ("digits",), "resnet", (12, 10), image=8, steps=100, seconds=1.5,
    ),
    "optdigits-cnn": _Recipe(
        "5,620 digits of 8x8, three convolutions with batch normalization, 3 epochs",
        data.optdigits, ("optdigits",), "cnn", ((16, 32, 32), (1, 2, 1), 10),
        image=8, steps=156, seconds=1.0,
    ),
    "mnist5k-mlp": _Recipe(
        "5,000 digits of MNIST, two hidden layers of 128, 5 epochs",
        data.mnist5k, ("mnist5k",), "mlp", (784, (128, 128), 10), steps=230, seconds=0.7,
    ),
    "mnist5k-cnn": _Recipe(
        "5,000 digits of MNIST, three convolutions with batch normalization, 4 epochs",
        data.mnist5k, ("mnist5k",), "cnn", ((8, 16, 32), (2, 2, 2), 10),
        image=28, steps=188, seconds=1.3,
    ),
    "animal-mnist-cnn": _Recipe(
        "10,000 silhouettes of ten animals, three convolutions with batch normalization, 2 epochs",
        data.animal_mnist, ("animal_mnist",), "cnn", ((8, 16, 32), (2, 2, 2), 10), image=28,
        steps=188, seconds=1.6,
    ),
    "breast-cancer-logistic": _Recipe(
        "569 tumours, logistic regression",
        data.breast_cancer, ("breast_cancer",), "linear", (30, 1), "binary",
        batch_size=32, steps=200, seconds=0.15,
    ),
    "diabetes-mlp": _Recipe(
        "442 patients, regression, one hidden layer of 32",
        data.diabetes, ("diabetes",), "mlp", (10, (32,), 1), "regression",
        batch_size=32, steps=200, seconds=0.15,
    ),
    "yeast3-mlp": _Recipe(
        "1,484 proteins, 11 % positive, one hidden layer of 32",
        lambda: data.keel("yeast3"), ("keel:yeast3",), "mlp", (8, (32,), 1), "imbalanced",
        batch_size=32, steps=200, seconds=0.15,
    ),
    "text-transformer": _Recipe(
        "Python's manual by characters, transformer of two layers, width 96, context 48",
        data.topics_text, ("topics_text",), "transformer", (), "text",
        batch_size=16, steps=220, seconds=7.5,
        model_options=(("width", 96), ("layers", 2), ("heads", 4)),
    ),
}  # fmt: skip

_CONTEXT = 48  # characters a window of text
_HELD_WINDOWS = (64, 384)  # of validation and test text: evaluation is not to outweigh training

NAMES: tuple[str, ...] = tuple(_RECIPES)


def describe(name: str) -> str:
    """Return one line about a named workload.

    Args:
        name: One of ``NAMES``.

    Raises:
        UnknownTarget: If there is no such workload.
    """  # noqa: DOC502
    if name not in _RECIPES:
        raise _unknown(name)
    return _RECIPES[name].what


def seconds_a_step(target: str) -> float:
    """Return what a step takes on one core, roughly, for plans; 0.01 for what is not known.

    Args:
        target: One of ``NAMES``, or a user's function.
    """
    recipe = _RECIPES.get(target)
    return 0.01 if recipe is None else recipe.seconds / recipe.steps


def _unknown(name: str) -> UnknownTarget:
    near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    return UnknownTarget(
        f"no workload is called {name!r}{hint} Known: {', '.join(NAMES)}; "
        "your own is module:function or path.py:function"
    )


def split_rows(labels: Array | None, n: int, seed: int) -> tuple[Array, Array, Array]:
    """Return the rows of training, validation and test data, 60/20/20.

    Args:
        labels: Class of each row, to balance the splits; None for regression.
        n: Number of rows.
        seed: Divides training from validation data. The test rows depend on ``labels`` and ``n``
            only.

    Returns:
        Three arrays of row numbers, disjoint, together all rows.
    """
    import numpy as np

    fixed = np.random.default_rng(np.random.SeedSequence([n, 60_20_20]))
    seeded = np.random.default_rng(np.random.SeedSequence([n, 60_20_20, seed]))
    groups = (
        [np.arange(n)]
        if labels is None
        else [np.flatnonzero(labels == label) for label in np.unique(labels)]
    )
    parts: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for group in groups:
        held = round(len(group) / 5)
        shuffled = fixed.permutation(group)
        rest = seeded.permutation(shuffled[held:])
        for part, rows in zip(parts, (rest[held:], rest[:held], shuffled[:held]), strict=True):
            part.append(rows)
    train, valid, test = (np.concatenate(part) for part in parts)
    return seeded.permutation(train), np.sort(valid), np.sort(test)


def problem(target: str, seed: int = 0) -> Problem:
    """Return a training problem.

    Args:
        target: One of ``NAMES``, or a user's function, ``module:function`` or ``path.py:function``,
            that takes the seed (or nothing) and returns a :class:`Problem`.
        seed: Divides training from validation data.

    Raises:
        UnknownTarget: If there is no such workload, module or function.
        TypeError: If the function does not return a :class:`Problem`.
    """  # noqa: DOC502
    if target in _RECIPES:
        return _build(target, _RECIPES[target], seed)
    if ":" not in target:
        raise _unknown(target)
    made = _call(target, seed)
    if not isinstance(made, Problem):
        raise TypeError(
            f"{target} must return a gradworks.bench.Problem, got {type(made).__name__}"
        )
    return made


def _call(target: str, seed: int) -> Any:
    """Call a user's function with the seed, or with nothing if it takes nothing."""
    function = resolve(target)
    if not callable(function):
        raise TypeError(f"{target} must be a function, got {type(function).__name__}")
    taken: Mapping[str, inspect.Parameter] = {}
    with contextlib.suppress(ValueError):  # built in: no signature to read
        taken = inspect.signature(function).parameters
    if "seed" in taken:
        return function(seed=seed)
    needed = [p for p in taken.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    return function(seed) if needed else function()


def _text(name: str, recipe: _Recipe) -> Problem:
    """Return a language model's problem; the splits are of sections, see ``bench.language``."""
    from gradworks.bench import language, models

    texts, _, _ = recipe.read()
    characters = language.alphabet(texts)
    parts = language.sections(texts)
    rows = split_rows(None, len(parts), seed=0)
    train, valid, test = (
        language.windows([parts[i] for i in chosen], characters, _CONTEXT, at_most)
        for chosen, at_most in zip(rows, (None, *_HELD_WINDOWS), strict=True)
    )
    return Problem(
        name=name,
        model=models.transformer(len(characters), _CONTEXT, **dict(recipe.model_options)),
        train=train,
        valid=valid,
        test=test,
        loss_fn=language.character_loss,
        metric=language.character_loss,
        metric_name="nats",
        batch_size=recipe.batch_size,
        steps=recipe.steps,
        data=recipe.data,
        train_rows=_HELD_WINDOWS[1],
    )


def _build(name: str, recipe: _Recipe, seed: int) -> Problem:
    if recipe.kind == "text":
        return _text(name, recipe)
    import numpy as np
    import torch
    from torch.nn import functional as F

    from gradworks.bench import measures, models

    X, y, _ = recipe.read()
    rows = split_rows(None if recipe.kind == "regression" else y, len(y), seed)
    X = X.reshape(len(X), -1).astype(np.float64)
    seen = X[rows[0]]
    if recipe.image:  # one mean and deviation: pixels keep their scale to each other
        mean, deviation = seen.mean(), seen.std()
    else:
        mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    X = (X - mean) / np.where(deviation > 0, deviation, 1.0)
    inputs = torch.tensor(X, dtype=torch.float32)
    if recipe.image:
        inputs = inputs.reshape(-1, 1, recipe.image, recipe.image)
    if recipe.kind == "classes":
        targets = torch.tensor(y)
    else:
        values = y.astype(np.float64)
        if recipe.kind == "regression":
            values = (values - values[rows[0]].mean()) / values[rows[0]].std()
        targets = torch.tensor(values, dtype=torch.float32).unsqueeze(1)
    table: dict[str, tuple[Any, Any, str]] = {
        "classes": (F.cross_entropy, measures.class_error, "error"),
        "binary": (F.binary_cross_entropy_with_logits, measures.binary_error, "error"),
        "imbalanced": (
            F.binary_cross_entropy_with_logits, measures.balanced_error, "balanced_error",
        ),
        "regression": (F.mse_loss, measures.unexplained, "unexplained"),
    }  # fmt: skip
    loss_fn, metric, metric_name = table[recipe.kind]
    build = getattr(models, recipe.model)
    train, valid, test = ((inputs[r], targets[r]) for r in (torch.from_numpy(r) for r in rows))
    return Problem(
        name=name,
        model=build(*recipe.model_args, **dict(recipe.model_options)),
        train=train,
        valid=valid,
        test=test,
        loss_fn=loss_fn,
        metric=metric,
        metric_name=metric_name,
        batch_size=recipe.batch_size,
        steps=recipe.steps,
        data=recipe.data,
    )


def curvature_target(
    target: str, seed: int = 0
) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], Any]:
    """Return ``(model, loss_fn, data)`` for a tool of ``gradworks.curvature``.

    Args:
        target: One of ``NAMES`` (the untrained model on its training data), or a user's function
            that takes the seed (or nothing) and returns the three, or a :class:`Problem`.
        seed: Of the weights and of the split.

    Raises:
        UnknownTarget: If there is no such workload, module or function.
        TypeError: If the function returns neither.
    """  # noqa: DOC502
    import numpy as np
    import torch

    made = problem(target, seed) if ":" not in target else _call(target, seed)
    if isinstance(made, Problem):
        state = np.random.SeedSequence([20_061, seed]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        return made.model(generator), made.loss_fn, made.train
    if not (isinstance(made, tuple) and len(made) == 3 and isinstance(made[0], torch.nn.Module)):
        found = f"a tuple of {len(made)}" if isinstance(made, tuple) else type(made).__name__
        raise TypeError(
            f"{target} must return (model, loss_fn, data) with model a torch.nn.Module, or a "
            f"gradworks.bench.Problem; got {found}"
        )
    if not callable(made[1]):
        raise TypeError(f"{target}: loss_fn must be callable, got {type(made[1]).__name__}")
    return made
