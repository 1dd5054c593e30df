"""Fisher matrices: over the model's own labels, over drawn ones, over the given ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.curvature.operators.batches import Microbatch
from gradworks.curvature.operators.ggn import GGNOperator, OutputProduct
from gradworks.curvature.operators.layout import Selection
from gradworks.curvature.operators.model import LossFn, Method, check_choice
from gradworks.curvature.operators.surroundings import Mode

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["FisherOperator"]

Likelihood = Literal["categorical", "gaussian", "bernoulli"]


def _plain(loss_fn: Any) -> bool:
    """No weights, smoothing or ignored label that would make the likelihood another one."""
    return (
        getattr(loss_fn, "weight", None) is None
        and getattr(loss_fn, "pos_weight", None) is None
        and not getattr(loss_fn, "label_smoothing", 0.0)
    )


def _torch_reduction(loss_fn: Any) -> Literal["mean", "sum"] | None:
    """How a loss of torch.nn comes to one number; None for a loss of one's own."""
    if loss_fn in (F.cross_entropy, F.mse_loss, F.binary_cross_entropy_with_logits):
        return "mean"
    if type(loss_fn) in (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss):
        return "sum" if loss_fn.reduction == "sum" else "mean"
    return None


def _recognise(loss_fn: Any) -> Likelihood:
    """The likelihood of a loss of torch.nn."""
    known: list[tuple[Any, type[nn.Module], Likelihood]] = [
        (F.cross_entropy, nn.CrossEntropyLoss, "categorical"),
        (F.mse_loss, nn.MSELoss, "gaussian"),
        (F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss, "bernoulli"),
    ]
    for function, module, likelihood in known:
        if loss_fn is function or (type(loss_fn) is module and _plain(loss_fn)):
            return likelihood
    raise ValueError(
        "likelihood of loss_fn is unknown (known: cross_entropy, mse_loss and "
        "binary_cross_entropy_with_logits without weights); pass likelihood='categorical', "
        "'gaussian' or 'bernoulli', or kind='empirical'"
    )


class FisherOperator(GGNOperator):
    r"""A Fisher matrix of a model, multiplied without being formed.

    ``kind="exact"`` is the expectation over the labels the model itself predicts; for softmax
    cross-entropy, logistic loss and squared error it equals the Gauss-Newton matrix.
    ``kind="mc"`` estimates it with drawn labels. ``kind="empirical"`` takes the labels of the data:
    it is **not** the Fisher matrix nor close to it away from a perfect fit, though often called so.

    .. math::
        F = \frac1N \sum_i \mathbb E_{y \sim p(\cdot|f_i)} \big[ g_i(y)\, g_i(y)^\top \big]\, D,
        \qquad
        F_{emp} = \frac1N \sum_i g_i g_i^\top

    with :math:`g_i` the gradient of one example's loss, a mean over its :math:`D` labels
    (:math:`D=1` for plain classification), drawn independently. A loss of torch with
    ``reduction="sum"`` sums over them instead, and ignored labels of ``cross_entropy`` count as
    absent: the exact matrix equals the Gauss-Newton matrix in all these cases.

    Args:
        model: As for :class:`GGNOperator`; the first dimension of its output counts examples.
        loss_fn: As there.
        data: As there.
        kind: ``"exact"``, ``"mc"`` or ``"empirical"``.
        num_samples: Labels drawn for each example, ``kind="mc"`` only. Default 1.
        generator: Source of the labels, on CPU; ``None`` for a fresh one with seed 0. The drawn
            labels are the same in every product.
        likelihood: ``"auto"`` recognises ``cross_entropy``, ``mse_loss`` and
            ``binary_cross_entropy_with_logits`` of torch (functions and modules without weights);
            name it for a loss of your own.
        params: As there.
        method: As there.
        mode: As there.
        microbatch_size: As there.
        reduction: As there.
        cache: As there.
        cache_bytes: As there.
        process_group: As there. Every process should draw with its own generator.
        check: As there.

    Raises:
        TypeError: As there.
        ValueError: As there; an unknown ``kind`` or ``likelihood``, ``num_samples`` below 1.

    Note:
        For squared error the likelihood is a Gaussian whose variance makes the loss its negative
        logarithm divided by :math:`D`.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import FisherOperator
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.ones(2, 1))
        >>> FisherOperator(model, torch.nn.functional.mse_loss, data).to_dense()
        tensor([[1., 0.],
                [0., 1.]])

    References:
        Kunstner, Hennig, Balles, "Limitations of the empirical Fisher approximation", 2019,
        arXiv:1905.12558.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: Any,
        *,
        kind: Literal["exact", "mc", "empirical"] = "exact",
        num_samples: int = 1,
        generator: torch.Generator | None = None,
        likelihood: Literal["auto", "categorical", "gaussian", "bernoulli"] = "auto",
        params: Selection = None,
        method: Method = "double_backward",
        mode: Mode = "eval",
        microbatch_size: int | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        cache: Literal["auto", "always", "never"] = "auto",
        cache_bytes: int = 2**30,
        process_group: ProcessGroup | None = None,
        check: bool = False,
    ) -> None:
        check_choice("kind", kind, ("exact", "mc", "empirical"))
        check_choice("likelihood", likelihood, ("auto", "categorical", "gaussian", "bernoulli"))
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(f"num_samples must be an integer of at least 1, got {num_samples!r}")
        self._kind = kind
        self._num_samples = num_samples
        self._likelihood: Likelihood | None = None
        if kind != "empirical":
            self._likelihood = _recognise(loss_fn) if likelihood == "auto" else likelihood
        source = generator if generator is not None else torch.Generator().manual_seed(0)
        # The starting state is kept, not the labels: they are drawn anew, the same, in every pass.
        self._draws = torch.Generator(device=source.device)
        self._draws.set_state(source.get_state())
        self._label_seed = int(
            torch.randint(2**62, (), generator=self._draws, device=source.device)
        )
        if generator is not None:
            generator.set_state(self._draws.get_state())
        super().__init__(
            model,
            loss_fn,
            data,
            params=params,
            method=method,
            mode=mode,
            microbatch_size=microbatch_size,
            reduction=reduction,
            cache=cache,
            cache_bytes=cache_bytes,
            process_group=process_group,
            check=check,
        )
        self._options |= {
            "kind": kind,
            "num_samples": num_samples,
            "generator": generator,
            "likelihood": likelihood,
        }

    def block(self, name: Selection) -> FisherOperator:
        """The diagonal block of some parameters, over the same drawn labels.

        Args:
            name: As for :meth:`ModelOperator.block`.

        Returns:
            An operator on those parameters.

        Raises:
            ValueError: The selection is empty.
        """  # noqa: DOC502
        source, self._options["generator"] = self._options["generator"], None
        try:
            block = super().block(name)
        finally:
            self._options["generator"] = source
        block._label_seed = self._label_seed
        return block

    def _middle(self, output: Tensor, part: Microbatch) -> OutputProduct:
        """Multiplication by the expected outer product of the loss's slopes in the outputs."""
        output = output.detach()
        if self._kind == "exact":
            return self._expected(output, self._per_label(output, part))
        if output.dim() == 0 or output.shape[0] != part.size:
            raise ValueError(
                f"kind={self._kind!r} needs outputs whose first dimension counts examples "
                f"({part.size} in {part.label}), got shape {tuple(output.shape)}"
            )
        if self._kind == "empirical":
            leaf = output.requires_grad_()
            loss = self._scalar(self._loss_fn(leaf, part.targets), part)
            self._require_graph(loss)
            (slope,) = torch.autograd.grad(loss, leaf)
            # Outer products are of one example's loss; the operator weighs a microbatch's mean.
            scale: float | Tensor = 1.0 / part.size if self._mean else 1.0
            slopes = (slope / scale)[None]
        else:
            slopes, scale = self._drawn(output, part), self._per_label(output, part)
            if isinstance(scale, Tensor):  # an example's ignored labels must not meet its others
                slopes = slopes * (scale != 0)
        dims = tuple(range(2, slopes.dim()))

        def product(u: Tensor) -> Tensor:
            inner = (slopes * u).sum(dims, keepdim=True) if dims else slopes * u
            return (slopes * inner).mean(0) * scale

        return product

    def _labels(self, output: Tensor) -> int:
        """D: independent labels in one example."""
        per_example = output[0].numel() if output.dim() > 0 else 1
        if self._likelihood == "categorical":
            return per_example // output.shape[1] if output.dim() > 1 else 1
        return per_example

    def _per_label(self, output: Tensor, part: Microbatch) -> float | Tensor:
        """What one label's outer product counts in a microbatch's matrix."""
        known = _torch_reduction(self._loss_fn)
        if known is None:  # a loss of one's own: as the operator is told, a mean over labels
            return (1.0 / part.size if self._mean else 1.0) / self._labels(output)
        targets, ignored = part.targets, getattr(self._loss_fn, "ignore_index", -100)
        if (
            self._likelihood == "categorical"
            and isinstance(targets, Tensor)
            and not targets.is_floating_point()
        ):
            counts = (targets != ignored).to(output.dtype)
            counts = counts.unsqueeze(min(1, output.dim() - 1))
            return counts if known == "sum" else counts / counts.sum()
        total = self._labels(output) * (output.shape[0] if output.dim() > 0 else 1)
        return 1.0 if known == "sum" else 1.0 / total

    def _expected(self, output: Tensor, scale: float | Tensor) -> OutputProduct:
        """Closed form of the expected outer product of a label's slopes."""
        if self._likelihood == "gaussian":
            return lambda u: (2.0 * scale) * u
        if self._likelihood == "bernoulli":
            p = output.sigmoid()
            return lambda u: scale * p * (1 - p) * u
        axis = 1 if output.dim() > 1 else 0
        q = output.softmax(axis)
        return lambda u: scale * q * (u - (q * u).sum(axis, keepdim=True))

    def _drawn(self, output: Tensor, part: Microbatch) -> Tensor:
        """Slopes at drawn labels: ``(num_samples, n, ...)``."""
        generator = torch.Generator().manual_seed(
            (self._label_seed + 1_000_003 * part.batch + part.piece) % 2**63
        )
        S = self._num_samples
        if self._likelihood == "gaussian":
            noise = torch.randn(S, *output.shape, generator=generator, dtype=torch.float64)
            # y = f + sqrt(1/2) e under the loss |f - y|^2.
            slopes = -2.0 * math.sqrt(0.5) * noise
        elif self._likelihood == "bernoulli":
            p = output.sigmoid().cpu().double()
            uniform = torch.rand(S, *output.shape, generator=generator, dtype=torch.float64)
            slopes = p - (uniform < p).double()
        else:
            axis = 1 if output.dim() > 1 else 0
            p = output.softmax(axis).movedim(axis, -1).cpu().double()
            flat = p.reshape(-1, p.shape[-1])
            drawn = torch.multinomial(flat, S, replacement=True, generator=generator)
            hot = F.one_hot(drawn.T, p.shape[-1]).double().reshape(S, *p.shape)
            slopes = (p - hot).movedim(-1, axis + 1)
        return slopes.to(output.device, output.dtype)
