"""The contract of every optimizer: bad input is refused at once, by name, and changes nothing."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from tests.optim.contract import CONTRACT, PATHS, Line, parameters
from tests.optim.test_contract import lines

BAD = [(line, *row) for line in CONTRACT for row in line.bad]


@pytest.mark.parametrize(
    ("line", "arguments", "error", "fragment"),
    BAD,
    ids=[f"{line}-{'-'.join(arguments)}-{i}" for i, (line, arguments, _, _) in enumerate(BAD)],
)
def test_bad_arguments(line: Line, arguments: Any, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        line.on(parameters(((6, 4),)), **arguments)
    assert fragment in str(caught.value)
    if set(arguments) & set(line.ungrouped):
        return
    # and in a group of its own
    optimizer = line.on(parameters(((2, 2),)))
    with pytest.raises(error) as caught:
        optimizer.add_param_group({"params": parameters(((6, 4),)), **arguments})
    assert fragment in str(caught.value)
    assert len(optimizer.param_groups) == 1


@lines
def test_every_argument_has_a_bad_value_in_the_table(line: Line) -> None:
    taken = set(inspect.signature(line.make).parameters) - {"params", "generator"}
    assert taken - {name for arguments, _, _ in line.bad for name in arguments} == set()


@lines
def test_bad_parameters(line: Line) -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        line.on([])
    with pytest.raises(TypeError, match="should be an iterable"):
        line.on(torch.ones(2))
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        line.on([1.0])
    flat = parameters(((6,),))
    flat[0]._is_flat_param = True
    with pytest.raises(RuntimeError, match=r"flat parameter of FSDP1 \(shape \(6,\)\)"):
        line.on(flat)


@lines
def test_what_a_method_does_not_have_is_refused(line: Line) -> None:
    """An option that a line says it lacks is an error, not an argument without effect."""
    lacking = {path: PATHS[path] for path in PATHS if path not in line.paths}
    if not line.capturable:
        lacking["capturable"] = {"capturable": True}
    if not line.differentiable:
        lacking["differentiable"] = {"differentiable": True}
    if not line.decays:
        lacking["weight_decay"] = {"weight_decay": 0.1}
    for name, asked in lacking.items():
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            line.make(parameters(((6, 4),)), **line.settings, **line.required, **asked)
    for name in line.required:
        settings = {k: v for k, v in line.settings.items() if k != name}
        with pytest.raises(TypeError, match=f"'{name}'"):
            line.make(parameters(((6, 4),)), **settings)
