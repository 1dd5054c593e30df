"""Text as a workload: sections that share nothing, windows, the transformer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradworks.bench import data, language, models, training, workloads
from gradworks.bench.experiment import Workload
from gradworks.bench.optimizers import arm
from gradworks.bench.transformer import Transformer
from gradworks.bench.trial import Trial
from gradworks.curvature import HessianOperator

# -- sections and windows --------------------------------------------------------------------------


def test_a_paragraph_is_kept_once_and_whole() -> None:
    texts = ["one two\n\nthree\n\n   \n\nfour", "three\n\none  two\n\nfive"]
    made = language.sections(texts, length=10)
    assert made == ["one two\n\nthree", "four", "five"]
    assert language.sections(texts, length=10**6) == ["one two\n\nthree\n\nfour", "five"]
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        language.sections(texts, length=0)


def test_windows_by_hand() -> None:
    characters = language.alphabet(["abc", "cab"])
    assert characters == "abc"
    inputs, targets = language.windows(["abcabca", "ab", "cba"], characters, 2)
    assert inputs.tolist() == [[0, 1], [2, 0], [1, 2], [2, 1]]
    assert targets.tolist() == [[1, 2], [0, 1], [2, 0], [1, 0]]
    few, _ = language.windows(["abcabca"], characters, 2, at_most=2)
    assert few.tolist() == [[0, 1], [1, 2]]  # spread over the text, ends included
    with pytest.raises(ValueError, match="context must be below the length of some text, got 9"):
        language.windows(["abcabca"], characters, 9)


def test_the_loss_is_the_mean_over_all_characters() -> None:
    output = torch.zeros(2, 3, 5)
    target = torch.zeros(2, 3, dtype=torch.long)
    assert language.character_loss(output, target).item() == pytest.approx(math.log(5))
    output[0, 0, 0] = 100.0  # one of six is certain
    assert language.character_loss(output, target).item() == pytest.approx(5 / 6 * math.log(5))


def test_no_paragraph_of_the_manual_is_in_two_splits() -> None:
    texts, _, _ = data.topics_text()
    parts = language.sections(texts)
    rows = workloads.split_rows(None, len(parts), seed=0)
    paragraphs = [
        {" ".join(p.split()) for i in split for p in parts[i].split("\n\n")} for split in rows
    ]
    assert all(paragraphs)
    for i, one in enumerate(paragraphs):
        assert not any(one & other for other in paragraphs[i + 1 :])
    # It matters: the manual repeats a good part of itself.
    kept, whole = sum(map(len, parts)), sum(map(len, texts))
    assert 0.7 < kept / whole < 0.9


def test_the_workload_is_the_one_that_is_written_down() -> None:
    made = workloads.problem("text-transformer", 0)
    other = workloads.problem("text-transformer", 5)
    for split in ("train", "valid", "test"):
        inputs, targets = getattr(made, split)
        assert inputs.dtype == torch.int64
        assert inputs.shape == targets.shape
        assert inputs.shape[1] == 48
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert torch.equal(inputs, getattr(other, split)[0])  # the split is the same for all seeds
    assert (len(made.valid[0]), len(made.test[0])) == (64, 384)
    assert (made.batch_size, made.steps, made.metric_name) == (16, 220, "nats")
    # No step of a trial sees a window twice.
    assert len(made.train[0]) > made.steps * made.batch_size
    model = made.model(torch.Generator().manual_seed(0))
    assert isinstance(model, Transformer)
    assert len(model.blocks) == 2
    assert model.blocks[0].heads == 4
    assert model.embedding.weight.shape[1] == 96


# -- the model -------------------------------------------------------------------------------------


def small() -> Transformer:
    build = models.transformer(7, 6, width=8, layers=2, heads=2)
    model = build(torch.Generator().manual_seed(3)).double()
    assert isinstance(model, Transformer)
    return model


def test_no_position_sees_what_comes_later() -> None:
    model = small()
    text = torch.tensor([[0, 1, 2, 3, 4, 5]])
    changed = text.clone()
    changed[0, 3] = 6
    first, second = model(text), model(changed)
    torch.testing.assert_close(first[:, :3], second[:, :3], rtol=0, atol=1e-12)
    assert (first[:, 3:] - second[:, 3:]).abs().amax(dim=-1).min() > 1e-6
    assert model(text[:, :2]).shape == (1, 2, 7)  # shorter inputs are allowed


def test_attention_is_pytorchs_own() -> None:
    block = small().blocks[0]
    hidden = torch.randn(3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    norm = block.norm1(hidden)
    q, k, v = (
        layer(norm).view(3, 6, 2, 4).transpose(1, 2)
        for layer in (block.query, block.key, block.value)
    )
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    after = hidden + block.output(mixed.transpose(1, 2).reshape(3, 6, 8))
    wanted = after + block.down(nn.functional.gelu(block.up(block.norm2(after))))
    torch.testing.assert_close(block(hidden), wanted, rtol=1e-12, atol=1e-12)


def test_embeddings_have_the_rule_that_is_documented() -> None:
    model = models.transformer(400, 6, width=64, layers=1, heads=2)(torch.Generator())
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.03)
    with pytest.raises(ValueError, match="heads must divide the width 8, got 3"):
        Transformer(5, 4, 8, 1, 3)


def test_the_model_has_a_second_derivative() -> None:
    model = small()
    inputs = torch.arange(6).repeat(4, 1)
    with HessianOperator(model, language.character_loss, (inputs, (inputs + 1) % 7)) as operator:
        vector = torch.ones(operator.shape[1], dtype=torch.float64)
        product = operator @ vector
    assert torch.isfinite(product).all()
    assert product.abs().max() > 0


@pytest.mark.slow
def test_it_learns_and_looks_at_some_training_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(
        name="text-transformer",
        label="text",
        trial=training.TRIAL,
        spec=training.spec("text-transformer", evals=2),
        steps=20,
        batch_size=16,
        select_on="nats",
    )
    looked: list[int] = []
    evaluate = training._Run.evaluate

    def spy(self: training._Run, split: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
        looked.append(len(split[0]))
        return evaluate(self, split)

    monkeypatch.setattr(training._Run, "evaluate", spy)
    trial = Trial.offline(workload, arm("adamw"), params={"lr": 3e-3, "weight_decay": 0.01})
    training.train(trial)
    assert trial.results["test"]["nats"] < 3.6  # from 4.6
    assert trial.results["test"]["nats"] == trial.results["test"]["loss"]
    assert looked == [64, 64, 64, 384, 64, 384]  # three times on the way; then train, valid, test
    model = workloads.problem("text-transformer").model(torch.Generator())
    assert trial.results["train"]["parameters"] == sum(p.numel() for p in model.parameters())
