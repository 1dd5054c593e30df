"""Lanczos' method: tridiagonal matrices, extreme eigenpairs, stochastic quadrature.

Reorthogonalisation is done twice, each time as two products with the stored block of vectors;
anything less gives ghost copies of the outer eigenvalues, which no count survives.

References:
    Lanczos, "An iteration method for the solution of the eigenvalue problem", 1950. Golub, Welsch,
    "Calculation of Gauss quadrature rules", 1969. Ubaru, Chen, Saad, "Fast estimation of tr(f(A))
    via stochastic Lanczos quadrature", 2017. Ghorbani, Krishnan, Xiao, 2019, arXiv:1901.10159.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.probes import check_count, check_operator
from gradworks.curvature.quadrature import SpectralMeasure
from gradworks.curvature.recurrence import Recurrence, Reorthogonalize, start_vector
from gradworks.curvature.ritz import Eigenpairs, eigsh

__all__ = ["Eigenpairs", "SpectralMeasure", "Tridiagonal", "eigsh", "slq", "tridiagonalize"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Tridiagonal:
    r"""What m steps of Lanczos' method leave: :math:`A Q = Q T + \beta_m q_{m+1} e_m^\top`.

    Attributes:
        alpha: Diagonal of T, ``(m,)``, float64 on CPU.
        beta: Off-diagonal of T, ``(m-1,)``, float64 on CPU.
        basis: Lanczos vectors as columns, ``(P, m)``; ``None`` when none were kept.
        residual_norm: :math:`\beta_m`; 0 after a breakdown.
        next_vector: :math:`q_{m+1}`, from which a longer run goes on; ``None`` after a breakdown.
        previous_vector: :math:`q_m`, needed to go on without a basis.
    """

    alpha: Tensor
    beta: Tensor
    basis: Tensor | None
    residual_norm: float
    next_vector: Tensor | None = None
    previous_vector: Tensor | None = None

    @property
    def broken_down(self) -> bool:
        """The Krylov space is invariant: eigenvalues of T are eigenvalues of the operator."""
        return self.next_vector is None

    def matrix(self) -> Tensor:
        """The tridiagonal matrix.

        Returns:
            T, ``(m, m)``, float64 on CPU.
        """
        return torch.diag(self.alpha) + torch.diag(self.beta, 1) + torch.diag(self.beta, -1)

    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Gauss quadrature of the spectral measure of the start vector.

        Returns:
            Nodes ascending ``(m,)`` and weights ``(m,)`` that sum to 1: the squared first
            components of the eigenvectors of T.
        """
        nodes, vectors = torch.linalg.eigh(self.matrix())
        return nodes, vectors[0] ** 2

    def state_dict(self) -> dict[str, Tensor | None]:
        """Tensors only, for ``torch.save`` and back through :meth:`from_state_dict`.

        Returns:
            The fields.
        """
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "basis": self.basis,
            "residual_norm": torch.tensor(self.residual_norm, dtype=torch.float64),
            "next_vector": self.next_vector,
            "previous_vector": self.previous_vector,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor | None]) -> Tridiagonal:
        """The inverse of :meth:`state_dict`.

        Args:
            state: What it gave.

        Returns:
            The same object.

        Raises:
            ValueError: A field is missing.
        """
        alpha, beta, norm = state.get("alpha"), state.get("beta"), state.get("residual_norm")
        if alpha is None or beta is None or norm is None:
            raise ValueError("state must have alpha, beta and residual_norm; pass state_dict()'s")
        return cls(
            alpha,
            beta,
            state.get("basis"),
            float(norm),
            state.get("next_vector"),
            state.get("previous_vector"),
        )


def _check_reorthogonalize(value: object) -> Reorthogonalize:
    """A word or a window."""
    window = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value not in {"full", "none"} and not window:
        raise ValueError(
            "reorthogonalize must be 'full', 'none' or a number of vectors of at least 1, "
            f"got {value!r}"
        )
    return value  # type: ignore[return-value]


def tridiagonalize(
    op: SymmetricOperator,
    num_steps: int,
    *,
    start: Tensor | None = None,
    reorthogonalize: Reorthogonalize = "full",
    generator: torch.Generator | None = None,
    breakdown_tol: float | None = None,
    resume: Tridiagonal | None = None,
    basis_device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Tridiagonal:
    r"""Reduce an operator to a small tridiagonal matrix.

    .. math::
        \beta_j q_{j+1} = A q_j - \alpha_j q_j - \beta_{j-1} q_{j-1},
        \qquad \alpha_j = q_j^\top A q_j

    Args:
        op: The operator.
        num_steps: m, at least 1; cut to P.
        start: First vector ``(P,)``, not zero; default: random signs.
        reorthogonalize: ``"full"`` (default): against all vectors, twice. An integer w: against
            the last w only. ``"none"``: the bare recurrence, which keeps no basis.
        generator: Source of the random start; ``None`` for a fresh one with seed 0.
        breakdown_tol: Stop at step j when :math:`\beta_j` is at most this times the largest
            coefficient so far; default :math:`10\,\epsilon\sqrt P`.
        resume: A shorter run of the same operator, continued: the result is bit for bit that of an
            uninterrupted one. ``start`` and ``generator`` are then ignored.
        basis_device: Where the vectors are kept, e.g. ``"cpu"`` for a GPU operator.
        progress: Called with (steps done, steps in all).

    Returns:
        The coefficients and the basis.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: ``num_steps`` below 1; a start that is zero, not finite or of another length; a
            wrong ``reorthogonalize``; ``resume`` of another size or without what is needed.

    Warns:
        RuntimeWarning: The vectors would take more than a quarter of the free memory.

    Note:
        Costs m products, :math:`4 m^2 P` flops and m·P numbers of memory.

    Example:
        >>> import torch
        >>> from gradworks.curvature.lanczos import tridiagonalize
        >>> from gradworks.curvature.operators import DenseOperator
        >>> A = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
        >>> t = tridiagonalize(DenseOperator(A), 3, start=torch.ones(3, dtype=torch.float64))
        >>> [round(x, 6) for x in torch.linalg.eigvalsh(t.matrix()).tolist()]
        [1.0, 2.0, 4.0]
    """  # noqa: DOC502
    op = check_operator(op)
    num_steps = min(check_count("num_steps", num_steps), op.dimension)
    reorthogonalize = _check_reorthogonalize(reorthogonalize)
    if breakdown_tol is not None and not 0 <= breakdown_tol < 1:
        raise ValueError(f"breakdown_tol must be in [0, 1), got {breakdown_tol}")
    if resume is not None and (resume.broken_down or len(resume.alpha) >= num_steps):
        return resume
    run = Recurrence(
        op,
        num_steps,
        reorthogonalize=reorthogonalize,
        breakdown_tol=breakdown_tol,
        basis_device=basis_device,
    )
    if resume is None:
        run.begin(start_vector(op, start, generator))
    else:
        _resume(run, resume, op, reorthogonalize)
    while run.steps < num_steps and not run.broken_down:
        run.step()
        if progress is not None:
            progress(run.steps, num_steps)
    run.settle()
    return Tridiagonal(
        alpha=run.alpha(),
        beta=run.beta()[:-1],
        basis=run.basis(),
        residual_norm=0.0 if run.broken_down else float(run.beta()[-1]),
        next_vector=None if run.broken_down else run.current.clone(),
        previous_vector=None if run.broken_down else run.previous.clone(),
    )


def _resume(
    run: Recurrence, t: Tridiagonal, op: SymmetricOperator, reorthogonalize: Reorthogonalize
) -> None:
    """Put a recurrence where a shorter run ended."""
    if t.next_vector is None or t.previous_vector is None:
        raise ValueError("resume has no next vector; save the whole Tridiagonal")
    if t.next_vector.shape != (op.shape[0],):
        raise ValueError(
            f"resume must be a run of an operator of size {op.shape[0]}, "
            f"got vectors of shape {tuple(t.next_vector.shape)}"
        )
    if reorthogonalize != "none" and t.basis is None:
        raise ValueError(
            "resume has no basis, which reorthogonalisation needs; pass reorthogonalize='none'"
        )
    run.restore(
        t.alpha,
        torch.cat([t.beta, t.beta.new_tensor([t.residual_norm])]),
        t.basis,
        t.next_vector,
        t.previous_vector,
    )


def slq(
    op: SymmetricOperator,
    *,
    num_steps: int = 100,
    num_probes: int = 1,
    reorthogonalize: Reorthogonalize = "full",
    generator: torch.Generator | None = None,
    basis_device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> SpectralMeasure:
    r"""Stochastic Lanczos quadrature: the whole spectral density from a few runs.

    .. math:: \tfrac1P \operatorname{tr} f(A) \approx
        \frac1R \sum_{r=1}^R \sum_{i=1}^m w_{ri}\, f(\theta_{ri})

    For densities, traces of functions and fractions of eigenvalues in a range of operators too
    large for :func:`~gradworks.curvature.spectrum.exact_spectrum`. Single eigenvalues inside the
    bulk are not resolved.

    Args:
        op: The operator.
        num_steps: m, Lanczos steps a run; default 100; cut to P.
        num_probes: R, independent runs; at least 2 for standard errors.
        reorthogonalize: As for :func:`tridiagonalize`; anything but ``"full"`` puts wrong weight
            on the outer eigenvalues.
        generator: Source of the probes; ``None`` for a fresh one with seed 0.
        basis_device: As for :func:`tridiagonalize`.
        progress: Called with (products done, products in all).

    Returns:
        Nodes and weights of each run.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: ``num_steps`` or ``num_probes`` below 1, or a wrong ``reorthogonalize``.

    Example:
        >>> import torch
        >>> from gradworks.curvature.lanczos import slq
        >>> from gradworks.curvature.operators import DenseOperator
        >>> op = DenseOperator(torch.diag(torch.arange(1.0, 5.0)))
        >>> round(float(slq(op, num_steps=4).trace()), 4)
        10.0
    """  # noqa: DOC502
    op = check_operator(op)
    check_count("num_steps", num_steps)
    check_count("num_probes", num_probes)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    nodes, weights = [], []
    steps = min(num_steps, op.dimension)
    for r in range(num_probes):
        t = tridiagonalize(
            op,
            num_steps,
            reorthogonalize=reorthogonalize,
            generator=generator,
            basis_device=basis_device,
            progress=_after(progress, r * steps, num_probes * steps),
        )
        if progress is not None:
            progress((r + 1) * steps, num_probes * steps)
        node, weight = t.quadrature()
        del t  # its basis, before the next one is allocated
        nodes.append(node)
        weights.append(weight)
    return SpectralMeasure(nodes, weights, op.dimension)


def _after(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The same callback, told of all runs."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
