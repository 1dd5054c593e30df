"""Optimizers by name with settings, and methods for matrices on a whole model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gradworks.bench import models, optimizers
from gradworks.bench.muon import MuonWithAdamW
from gradworks.optim import DCTAdamW


def text() -> nn.Module:
    build = models.transformer(11, 6, width=8, layers=1, heads=2)
    return build(torch.Generator().manual_seed(0))


def names(model: nn.Module, group: dict) -> list[str]:
    known = {p: name for name, p in model.named_parameters()}
    return [known[p] for p in group["params"]]


# -- names with settings ---------------------------------------------------------------------------


def test_settings_follow_a_name() -> None:
    made = optimizers.arm("DCTAdamW@rank=24@side=left")
    assert made.name == "dctadamw@rank=24@side=left"
    assert made.label == "DCTAdamW, rank 24, side left"
    assert made.method == "gradworks.optim.DCTAdamW"
    assert made.fixed == {"rank": 24, "side": "left"}
    assert optimizers.arm("dctadamw").fixed == {"rank": 0.25}
    fixed = optimizers.arm("torch.optim.SGD@lr=0.5@nesterov=False")
    assert fixed.fixed == {"momentum": 0.9, "nesterov": False, "lr": 0.5}
    assert [knob.name for knob in fixed.space] == ["weight_decay"]
    assert (fixed.method, fixed.label) == ("torch.optim.SGD", "SGD, lr 0.5, nesterov False")


@pytest.mark.parametrize(
    ("name", "error", "fragment"),
    [
        ("sgd@", ValueError, "'' must be a setting, such as rank=24"),
        ("sgd@momentum", ValueError, "'momentum' must be a setting"),
        ("sgd@momentum=", ValueError, "'momentum=' must be a setting"),
        ("sgd@momentun=0.9", TypeError, "takes no setting 'momentun'"),
    ],
)
def test_settings_that_are_none(name: str, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error, match=fragment):
        optimizers.arm(name)


def test_what_is_not_searched_stays_at_its_centre() -> None:
    made = optimizers.arm("trion", search=["lr", "adamw_lr"])
    assert {k.name: k.default for k in made.space} == {"lr": 0.02, "adamw_lr": 3e-4}
    assert made.fixed == {"rank": 0.25, "weight_decay": 0.01}
    whole = optimizers.arm("adamw")
    fixed = optimizers.arm("adamw", search=["lr"])
    assert fixed.space == whole.space[:1]
    assert fixed.fixed == {"weight_decay": whole.space[1].default}


# -- which parameters ------------------------------------------------------------------------------


def test_hidden_matrices_are_neither_embeddings_nor_the_last_layer() -> None:
    model = text()
    known = {p: name for name, p in model.named_parameters()}
    found = [known[p] for p in optimizers.hidden_matrices(model)]
    assert found == [
        f"blocks.0.{layer}.weight" for layer in ("query", "key", "value", "output", "up", "down")
    ]
    model.blocks[0].up.weight.requires_grad_(False)
    assert len(optimizers.hidden_matrices(model)) == 5
    assert not optimizers.hidden_matrices(nn.Linear(3, 2))
    convolutions = models.cnn((4, 4), (1, 1), 10)(torch.Generator())
    assert not optimizers.hidden_matrices(convolutions)
    assert optimizers.acts_on("muon", convolutions) == 0
    assert optimizers.acts_on("adamp", convolutions) == 1
    hidden = sum(p.numel() for p in optimizers.hidden_matrices(text()))
    share = hidden / sum(p.numel() for p in text().parameters())
    assert optimizers.acts_on("dctadamw@rank=2", text()) == pytest.approx(share)


def test_groups_of_a_method_for_matrices() -> None:
    model = text()
    made = optimizers.make_optimizer(
        "dctadamw", model, {"lr": 1e-3, "weight_decay": 0.1, "rank": 2}
    )
    assert isinstance(made, DCTAdamW)
    inside, rest, vectors = made.param_groups
    assert len(inside["params"]) == 6
    assert (inside["max_dim"], inside["weight_decay"]) == (32_000, 0.1)
    assert names(model, rest) == ["embedding.weight", "positions.weight", "head.weight"]
    assert (rest["max_dim"], rest["weight_decay"]) == (0, 0.1)
    assert all(p.dim() < 2 for p in vectors["params"])
    assert (vectors["max_dim"], vectors["weight_decay"]) == (0, 0.0)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    made.step()
    low = [p for p in model.parameters() if "indices" in made.state[p]]
    assert low == optimizers.hidden_matrices(model)
    undecayed = optimizers.make_optimizer("dctadamw", model, {"lr": 1e-3, "rank": 2})
    assert len(undecayed.param_groups) == 2
    everywhere = {"lr": 1e-3, "rank": 2, "weight_decay": 0.1}
    assert (
        len(optimizers.make_optimizer("dctadamw", model, everywhere, decay="all").param_groups) == 2
    )


def test_a_class_of_the_users_own_can_ask_for_the_same() -> None:
    class Own(torch.optim.SGD):
        rest_of_model = {"momentum": 0.5}

    found = optimizers._rest_of(Own)
    assert found == {"momentum": 0.5}
    assert optimizers._rest_of(torch.optim.SGD) is None


# -- Muon ------------------------------------------------------------------------------------------


def train(model: nn.Module, made: torch.optim.Optimizer, steps: int) -> None:
    inputs = torch.arange(6).repeat(2, 1)
    for _ in range(steps):
        made.zero_grad()
        nn.functional.cross_entropy(model(inputs).flatten(0, 1), inputs.flatten()).backward()
        made.step()


def test_muon_is_pytorchs_two() -> None:
    ours, theirs = text(), text()
    settings = {"lr": 0.02, "weight_decay": 0.1, "adamw_lr": 3e-3}
    made = optimizers.make_optimizer("muon", ours, settings)
    assert isinstance(made, MuonWithAdamW)
    hidden = optimizers.hidden_matrices(theirs)
    rest = [p for p in theirs.parameters() if all(p is not h for h in hidden)]
    adamw = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-10}
    pair = [
        torch.optim.Muon(hidden, lr=0.02, weight_decay=0.1),
        torch.optim.AdamW([p for p in rest if p.dim() == 2], weight_decay=0.1, **adamw),
        torch.optim.AdamW([p for p in rest if p.dim() < 2], weight_decay=0.0, **adamw),
    ]
    inputs = torch.arange(6).repeat(2, 1)
    for step in range(4):
        for group in made.param_groups:
            group["lr"] = 0.02 / (step + 1)  # a schedule acts on both
        for one, rate in zip(pair, (0.02, 3e-3, 3e-3), strict=True):
            one.param_groups[0]["lr"] = rate / (step + 1)
            one.zero_grad()
        train(ours, made, 1)
        nn.functional.cross_entropy(theirs(inputs).flatten(0, 1), inputs.flatten()).backward()
        for one in pair:
            one.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    state = sum(optimizers.optimizer_bytes(one) for one in pair)
    assert optimizers.optimizer_bytes(made) == state


def test_muon_resumes_bit_for_bit() -> None:
    whole, stopped = text(), text()
    settings = {"lr": 0.02, "weight_decay": 0.1}
    made = optimizers.make_optimizer("muon", whole, settings)
    train(whole, made, 6)
    before = optimizers.make_optimizer("muon", stopped, settings)
    train(stopped, before, 3)
    saved = copy.deepcopy(before.state_dict())
    after = optimizers.make_optimizer("muon", stopped, settings)
    after.load_state_dict(saved)
    train(stopped, after, 3)
    for a, b in zip(whole.parameters(), stopped.parameters()):
        assert torch.equal(a, b)


def test_muon_takes_a_closure() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    made = MuonWithAdamW([weight], lr=0.1)

    def closure() -> torch.Tensor:
        made.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert made.step(closure) == 4.0
    assert (weight < 1).all()
