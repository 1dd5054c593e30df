"""What random matrix theory says of the extreme eigenvalues of a batch's curvature."""

from __future__ import annotations

import math

__all__ = [
    "batch_extreme_eigenvalue",
    "batch_ggn_extreme_eigenvalue",
    "check_batch",
    "check_number",
    "check_positive",
    "damping",
    "effective_batch",
    "eigenvector_overlap",
    "full_eigenvalue",
    "noise_edge",
    "noise_of_extreme",
]


def check_number(name: str, value: object) -> float:
    """A finite real number."""
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not isinstance(value, (int, float)):
        try:
            value = float(value)  # type: ignore[arg-type]  # numpy and one-element tensors
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be a number, got {type(value).__name__}") from error
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def check_positive(name: str, value: object) -> float:
    """A finite number above 0."""
    number = check_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return number


def check_batch(
    batch_size: object, dataset_size: object = None, *, name: str = "batch_size"
) -> tuple[float, float | None]:
    """A batch size, and a data set that holds it."""
    size = check_number(name, batch_size)
    if size < 1:
        raise ValueError(f"{name} must be at least 1, got {batch_size}")
    if dataset_size is None:
        return size, None
    whole = check_number("dataset_size", dataset_size)
    if whole < size:
        raise ValueError(f"{name} must be at most dataset_size {dataset_size}, got {batch_size}")
    return size, whole


def _check_noise(noise: object, name: str = "noise") -> float:
    """A variance."""
    number = check_number(name, noise)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {noise}")
    return number


def _inverse(batch_size: object, dataset_size: object) -> float:
    """1/b = 1/B - 1/N: exactly 0 for the whole data set."""
    size, whole = check_batch(batch_size, dataset_size)
    return 1 / size if whole is None else 1 / size - 1 / whole


def effective_batch(batch_size: float, dataset_size: float | None = None) -> float:
    r"""The batch size that counts, when a batch is drawn without replacement.

    .. math:: \frac1b = \frac1B - \frac1N

    Args:
        batch_size: B, 1..N.
        dataset_size: N; ``None`` for data without end.

    Returns:
        b, from B up to infinity at B = N.

    Raises:
        ValueError: ``batch_size`` below 1 or above ``dataset_size``.

    Example:
        >>> from gradworks.curvature.learning_rate import effective_batch
        >>> effective_batch(50, 100), effective_batch(100, 100), effective_batch(50)
        (100.0, inf, 50.0)
    """  # noqa: DOC502
    inverse = _inverse(batch_size, dataset_size)
    return 1 / inverse if inverse > 0 else math.inf


def batch_extreme_eigenvalue(
    lam: float,
    noise: float,
    batch_size: float,
    dataset_size: float | None = None,
    *,
    side: str = "upper",
) -> float:
    r"""Law 1: the extreme eigenvalue of the Hessian of a batch.

    The Hessian of a batch is that of all data plus a symmetric matrix of noise, whose spectrum is a
    semicircle with edges :math:`\pm 2\sqrt s`, where :math:`s = \nu/b`:

    .. math::
        \lambda' = \lambda + \frac{s}{\lambda} \quad\text{if } |\lambda| > \sqrt s,
        \qquad \pm 2 \sqrt s \quad\text{otherwise.}

    Args:
        lam: :math:`\lambda`, the extreme eigenvalue over all data.
        noise: :math:`\nu = P \sigma^2`, at least 0, in units of :math:`\lambda^2` times examples;
            from :func:`measure_noise` or :func:`fit_noise`.
        batch_size: B, 1..N.
        dataset_size: N; ``None`` for data without end.
        side: ``"upper"`` for the largest eigenvalue (``lam`` at least 0), ``"lower"`` for the
            smallest (``lam`` below 0).

    Returns:
        The mean extreme eigenvalue over batches; ``lam`` at B = N.

    Raises:
        ValueError: A batch size outside 1..N, a negative noise, an unknown side or one that the
            sign of ``lam`` contradicts.

    Note:
        :math:`1/\lambda'` never grows faster than the square root of b: its logarithmic slope is
        :math:`s/(\lambda^2 + s)` above the transition, at most 1/2, and 1/2 below it. The linear
        rule for SGD is a rule of its own (:func:`scale_learning_rate`), not a range of this curve.

    Example:
        >>> from gradworks.curvature.learning_rate import batch_extreme_eigenvalue
        >>> batch_extreme_eigenvalue(4.0, 200.0, 64), batch_extreme_eigenvalue(0.5, 200.0, 8)
        (4.78125, 10.0)

    References:
        Granziol, Zohren, Roberts, "Learning Rates as a Function of Batch Size", JMLR 23(173), 2022,
        arXiv:2006.09092.
    """
    lam = check_number("lam", lam)
    noise = _check_noise(noise)
    if side not in ("upper", "lower"):
        raise ValueError(f"side must be one of upper, lower, got {side!r}")
    if (side == "lower") != (lam < 0):
        want = "at least 0" if side == "upper" else "below 0"
        raise ValueError(f"side={side!r} needs lam {want}, got {lam}")
    s = noise * _inverse(batch_size, dataset_size)
    return math.copysign(_spike(abs(lam), s), -1.0 if side == "lower" else 1.0)


def _spike(lam: float, s: float) -> float:
    """The law for a spike of at least 0 in noise of variance s."""
    edge = math.sqrt(s)
    return lam + s / lam if lam > edge else 2 * edge


def noise_of_extreme(lam: float, extreme: float, inverse: float) -> float:
    """The noise at which Law 1 gives ``extreme``: its inverse; 0 for one not above ``lam``."""
    if extreme <= lam or inverse <= 0:
        return 0.0
    s = lam * (extreme - lam) if extreme <= 2 * lam else extreme**2 / 4
    return s / inverse


def full_eigenvalue(
    extreme: float, noise: float, batch_size: float, dataset_size: float | None = None
) -> float:
    r"""The eigenvalue over all data behind one that was measured on a batch: Law 1 inverted.

    .. math:: \lambda = \tfrac12 \bigl(\lambda' + \sqrt{\lambda'^2 - 4 s}\bigr)

    Args:
        extreme: :math:`\lambda'`, the largest eigenvalue on the batch, above 0.
        noise: :math:`\nu`, at least 0.
        batch_size: B, 1..N.
        dataset_size: N; ``None`` for data without end.

    Returns:
        :math:`\lambda`. At and below the edge of the noise, where it cannot be seen, its upper
        bound :math:`\lambda'/2`.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> from gradworks.curvature.learning_rate import full_eigenvalue
        >>> full_eigenvalue(4.78125, 200.0, 64)
        4.0
    """  # noqa: DOC502
    top = check_positive("extreme", extreme)
    s = _check_noise(noise) * _inverse(batch_size, dataset_size)
    rest = top**2 - 4 * s
    return (top + math.sqrt(rest)) / 2 if rest > 0 else top / 2


def batch_ggn_extreme_eigenvalue(
    lam: float, sigma2: float, num_params: int, batch_size: float
) -> float:
    r"""Law 2: the largest eigenvalue of the Gauss-Newton matrix of a batch.

    Its noise is positive: a spiked covariance matrix, with :math:`q = P/B`:

    .. math::
        \lambda' = \lambda \Bigl(1 + \frac{q\,v}{\lambda - v}\Bigr)
        \quad\text{if } \lambda > v\,(1 + \sqrt q), \qquad v\,(1 + \sqrt q)^2 \quad\text{otherwise.}

    Args:
        lam: :math:`\lambda`, the eigenvalue of the population, at least 0.
        sigma2: :math:`v`, the eigenvalue of all other directions, at least 0.
        num_params: P, at least 1.
        batch_size: B, at least 1.

    Returns:
        The largest eigenvalue in the limit of large P and B.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> from gradworks.curvature.learning_rate import batch_ggn_extreme_eigenvalue
        >>> round(batch_ggn_extreme_eigenvalue(50.0, 1.0, num_params=400, batch_size=100), 4)
        54.0816

    References:
        Baik, Silverstein, "Eigenvalues of large sample covariance matrices of spiked population
        models", 2006.
    """
    lam, v = _check_noise(lam, "lam"), _check_noise(sigma2, "sigma2")
    size, _ = check_batch(batch_size)
    P = check_number("num_params", num_params)
    if P < 1:
        raise ValueError(f"num_params must be at least 1, got {num_params}")
    q = P / size
    if lam > v * (1 + math.sqrt(q)):
        return lam * (1 + q * v / (lam - v))
    return v * (1 + math.sqrt(q)) ** 2


def eigenvector_overlap(
    lam: float, noise: float, batch_size: float, dataset_size: float | None = None
) -> float:
    r"""How far a batch's extreme eigenvector can be trusted.

    .. math:: \langle u', u \rangle^2 = 1 - \frac{s}{\lambda^2}, \qquad s = \nu/b

    Args:
        lam: :math:`\lambda`, the extreme eigenvalue over all data, of either sign.
        noise: :math:`\nu`, at least 0.
        batch_size: B, 1..N.
        dataset_size: N; ``None`` for data without end.

    Returns:
        The squared cosine to the eigenvector over all data: 1 at B = N, 0 at and below the
        transition.

    Raises:
        ValueError: A batch size outside 1..N or a negative noise.

    Example:
        >>> from gradworks.curvature.learning_rate import eigenvector_overlap
        >>> eigenvector_overlap(4.0, 200.0, 50), eigenvector_overlap(4.0, 200.0, 8)
        (0.75, 0.0)
    """  # noqa: DOC502
    lam = check_number("lam", lam)
    s = _check_noise(noise) * _inverse(batch_size, dataset_size)
    return 1 - s / lam**2 if abs(lam) > math.sqrt(s) else 0.0


def noise_edge(batch_size: float, noise: float) -> float:
    r"""The smallest eigenvalue that a batch can tell from noise: :math:`2\sqrt{\nu/B}`.

    Args:
        batch_size: B, at least 1.
        noise: :math:`\nu`, at least 0.

    Returns:
        The edge of the noise's semicircle.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> from gradworks.curvature.learning_rate import noise_edge
        >>> noise_edge(25, 400.0)
        8.0
    """  # noqa: DOC502
    size, _ = check_batch(batch_size)
    return 2 * math.sqrt(_check_noise(noise) / size)


def damping(lr: float, batch_size: float, noise: float, *, constant: float = 1.0) -> float:
    r"""The least damping of a second-order step on a batch.

    For updates :math:`(H^+ + \delta I)^{-1} g`:

    .. math:: \delta_{\min} = c\,\frac{\mathrm{lr}\;\nu}{B}

    Args:
        lr: Learning rate, above 0.
        batch_size: B, at least 1.
        noise: :math:`\nu`, at least 0.
        constant: c, above 0. The proportionality is the paper's, its constant is not given there:
            1 is our choice.

    Returns:
        :math:`\delta_{\min}`.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> from gradworks.curvature.learning_rate import damping
        >>> damping(0.1, batch_size=50, noise=200.0)
        0.4
    """  # noqa: DOC502
    size, _ = check_batch(batch_size)
    return (
        check_positive("constant", constant) * check_positive("lr", lr) * _check_noise(noise) / size
    )
