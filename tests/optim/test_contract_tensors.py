"""The contract of every optimizer: layouts, complex and sparse tensors, ``torch.compile``."""

from __future__ import annotations

import pytest
import torch
from tests.optim.contract import CONTRACT, PATHS, Line, parameters, set_gradients, values
from tests.optim.line import assert_near
from tests.optim.test_contract import lines, on_each_path, on_eager_paths
from torch import nn


@on_each_path
def test_memory_formats_agree(line: Line, path: str) -> None:
    shapes = ((4, 3, 3, 3), (2, 4, 3, 2, 2))
    runs = []
    for formats in (
        (torch.contiguous_format, torch.contiguous_format),
        (torch.channels_last, torch.channels_last_3d),
    ):
        params = parameters(shapes)
        params = [
            nn.Parameter(p.detach().contiguous(memory_format=f)) for p, f in zip(params, formats)
        ]
        # gradients stay contiguous: their format need not be the weight's
        line.train(line.on(params, weight_decay=0.1, **PATHS[path]), params, range(6))
        runs.append(values(params))
    assert_near(*runs)


@on_each_path
def test_weights_with_gaps(line: Line, path: str) -> None:
    """Views into a larger tensor have no dense form; every path takes them."""
    room = torch.zeros(6, 9, dtype=torch.float64)
    plain = parameters(((6, 4),))
    room[:, ::2][:, :4] = plain[0].detach()
    view = nn.Parameter(room[:, ::2][:, :4])
    assert view.data_ptr() == room.data_ptr()
    line.train(line.on([view], **PATHS[path]), [view], range(4))
    line.train(line.on(plain), plain, range(4))
    assert_near([view.detach()], values(plain))
    assert not room[:, 1::2].any()


@on_eager_paths
def test_transposed_weights(line: Line, path: str) -> None:
    plain = parameters(((6, 4), (5, 8)))
    turned = [nn.Parameter(p.detach().T.contiguous().T) for p in plain]
    assert not turned[0].is_contiguous()
    for params in (plain, turned):
        line.train(line.on(params, **line.variants[-1], **PATHS[path]), params, range(4))
    assert_near(values(turned), values(plain))


@on_eager_paths
def test_complex_is_pairs_of_reals_or_refused(line: Line, path: str) -> None:
    real = parameters(((3, 4, 2), (2, 3, 5, 2)))
    paired = [nn.Parameter(torch.view_as_complex(p.detach().clone())) for p in real]
    settings = {**line.variants[-1], **PATHS[path]}
    if line.complex is not None:
        with pytest.raises((RuntimeError, ValueError, TypeError), match=line.complex):
            line.train(line.on(paired, **settings), paired, range(1))
        assert_near(values(paired), [torch.view_as_complex(p.detach()) for p in real])
        return
    runs = [line.on(real, **settings), line.on(paired, **settings)]
    for step in range(6):
        set_gradients(real, step)
        for p, q in zip(real, paired):
            q.grad = torch.view_as_complex(p.grad)
        for optimizer in runs:
            line.step(optimizer)
    assert_near([torch.view_as_real(p.detach()) for p in paired], values(real))


@lines
def test_sparse_gradients_are_refused(line: Line) -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = line.on(embedding.parameters())
    embedding(torch.tensor([1, 2])).sum().backward()
    before = embedding.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"does not take sparse gradients.*\(5, 3\)"):
        line.step(optimizer)
    assert torch.equal(embedding.weight, before)


# ---------------------------------------------------------------- compile

COMPILED = [
    pytest.param(line, path, i, id=f"{line}-{path}-{i}")
    for line in CONTRACT
    for path in line.paths
    if path != "fused"
    for i in ((0, len(line.variants) - 1) if path == "single" else (0,))
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("line", "path", "variant"), COMPILED)
def test_compiled_step(line: Line, path: str, variant: int) -> None:
    """The same step; a schedule on a tensor compiles nothing again."""
    torch._dynamo.reset()  # all optimizers share torch's wrapper of step, and its 8 compilations
    shapes = ((6, 4), (3, 2, 3, 3), (7,))
    runs = []
    for compiled in (False, True):
        params = parameters(shapes, dtype=torch.float32)
        lr = torch.tensor(line.settings["lr"])
        settings = {**line.variants[variant], "weight_decay": 0.1, **line.asked(path, lr)}
        optimizer = line.on(params, **settings)
        step = torch.compile(optimizer.step) if compiled else optimizer.step
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        graphs = []
        for i in range(6):
            set_gradients(params, i)
            lr.fill_(line.settings["lr"] / (1 + i))
            if line.before is not None:
                line.before(optimizer)
            step()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
        runs.append(values(params))
    torch.testing.assert_close(*runs)
    assert graphs[0] >= 1
    assert graphs[-1] == graphs[1]
