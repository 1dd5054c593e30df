"""What every optimizer of the library must pass: one line a method in ``CONTRACT``.

The files ``test_contract*.py`` and ``test_sharded.py`` run each line through all of it. A new
optimizer adds a line here and writes its own golden parity, transcription and identities beside it.
"""

from __future__ import annotations

import torch
from tests.optim.line import (
    PATHS,
    SHAPES,
    Bad,
    Line,
    gradient,
    parameters,
    set_gradients,
    settings_of,
    train,
    values,
)

from gradworks.optim import ARO, SGDP, AdaHessian, AdamP, DCTAdamW, DiffGrad, Langevin, Trion

__all__ = [
    "CONTRACT",
    "PATHS",
    "SHAPES",
    "Line",
    "gradient",
    "parameters",
    "set_gradients",
    "settings_of",
    "train",
    "values",
]

BAD: tuple[Bad, ...] = (
    ({"lr": -1.0}, ValueError, "lr must be at least 0 and finite, got -1.0"),
    ({"lr": float("nan")}, ValueError, "lr must be at least 0"),
    ({"lr": float("inf")}, ValueError, "lr must be at least 0 and finite"),
    ({"lr": torch.tensor(-1.0)}, ValueError, "lr must be at least 0"),
    ({"lr": torch.ones(2)}, ValueError, "one element, got shape (2,)"),
    ({"lr": "0.1"}, TypeError, "lr must be a number, got str"),
    ({"lr": None}, TypeError, "lr must be a number, got NoneType"),
    ({"lr": True}, TypeError, "lr must be a number, got bool"),
    ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0, got -0.1"),
    ({"weight_decay": float("nan")}, ValueError, "weight_decay must be at least 0, got nan"),
    ({"weight_decay": "0"}, TypeError, "weight_decay must be a number, got str"),
    ({"maximize": 1}, TypeError, "maximize must be True or False, got 1"),
    ({"foreach": "yes"}, TypeError, "foreach must be True, False or None, got 'yes'"),
)
EPS_BAD: tuple[Bad, ...] = (
    ({"eps": -1e-8}, ValueError, "eps must be at least 0, got -1e-08"),
    ({"eps": float("nan")}, ValueError, "eps must be at least 0"),
    ({"eps": "1e-8"}, TypeError, "eps must be a number, got str"),
)
CAPTURABLE_BAD: tuple[Bad, ...] = (
    ({"capturable": 1}, TypeError, "capturable must be True or False, got 1"),
)
# of those that have a kernel and let autograd follow
ELEMENTWISE_BAD: tuple[Bad, ...] = (
    ({"differentiable": None}, TypeError, "differentiable must be True or False"),
    ({"fused": 1}, TypeError, "fused must be True, False or None, got 1"),
    ({"foreach": True, "fused": True}, ValueError, "exclude each other"),
    ({"fused": True, "differentiable": True}, ValueError, "exclude each other"),
    ({"foreach": True, "differentiable": True}, ValueError, "exclude each other"),
)


def betas_bad(name: str = "betas") -> tuple[Bad, ...]:
    """Two decay rates."""
    return (
        ({name: (1.0, 0.9)}, ValueError, f"{name}[0] must be in [0, 1), got 1.0"),
        ({name: (0.9, -0.1)}, ValueError, f"{name}[1] must be in [0, 1), got -0.1"),
        ({name: (0.9, float("nan"))}, ValueError, f"{name}[1] must be in [0, 1)"),
        ({name: 0.9}, TypeError, f"{name} must be a pair"),
        ({name: (0.9,)}, TypeError, f"{name} must be a pair"),
        ({name: ("0.9", 0.9)}, TypeError, f"{name}[0] must be a number, got str"),
    )


PROJECTED_BAD: tuple[Bad, ...] = (
    ({"delta": -0.1}, ValueError, "delta must be at least 0, got -0.1"),
    ({"wd_ratio": 1.5}, ValueError, "wd_ratio must be in [0, 1], got 1.5"),
    ({"wd_ratio": -0.1}, ValueError, "wd_ratio must be in [0, 1], got -0.1"),
    ({"nesterov": "no"}, TypeError, "nesterov must be True or False"),
    ({"record_branches": 0}, TypeError, "record_branches must be True or False"),
    ({"channel_dim": 2}, ValueError, "channel_dim must be in [-2, 2) for a parameter of shape"),
    ({"channel_dim": 0.0}, TypeError, "channel_dim must be an integer"),
    ({"channel_dim": True}, TypeError, "channel_dim must be an integer"),
)
LOW_RANK_BAD: tuple[Bad, ...] = (
    ({"rank": 0}, ValueError, "rank must be at least 1, or a fraction in (0, 1), got 0"),
    ({"rank": -3}, ValueError, "rank must be at least 1"),
    ({"rank": 0.0}, ValueError, "rank as a fraction must be in (0, 1), got 0.0"),
    ({"rank": 4.0}, ValueError, "rank as a fraction must be in (0, 1), got 4.0; 4, not 4.0"),
    ({"rank": True}, TypeError, "rank must be an integer or a fraction, got True"),
    ({"rank": "4"}, TypeError, "rank must be an integer or a fraction, got '4'"),
    ({"rank": None}, TypeError, "rank is required"),
    ({"norm": 3}, ValueError, "norm must be 1 or 2, got 3"),
    ({"norm": True}, ValueError, "norm must be 1 or 2, got True"),
    ({"side": "up"}, ValueError, "side must be one of auto, left, right, got 'up'"),
    ({"max_dim": -1}, ValueError, "max_dim must be at least 0, got -1"),
    ({"max_dim": 1.5}, TypeError, "max_dim must be an integer, got 1.5"),
    ({"basis": "dct4"}, ValueError, "basis must be one of"),
    ({"basis": 3}, TypeError, "or a square orthogonal tensor, got int"),
    ({"basis": torch.ones(4, 4)}, ValueError, "basis as a tensor must be orthogonal to 0.0001"),
    ({"basis": torch.ones(4, 3)}, ValueError, "must be square, real and floating, got shape (4, 3"),
    ({"basis": torch.eye(5)}, ValueError, "a weight of shape (6, 4) needs 4"),
    (
        {"basis": "hadamard", "side": "left"},
        ValueError,
        "needs a size that is a power of 2, a weight of shape (6, 4) has 6",
    ),
)
# the dimension that is whole on each process is projected
SIDES = {"rows": {"side": "right"}, "columns": {"side": "left"}}


def given_curvature(optimizer: AdaHessian) -> None:
    """An estimate that depends on the gradients alone."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    grads = [p.grad for p in params if p.grad is not None and p.requires_grad]
    optimizer.set_hessian(
        [0.5 + (g.to_dense() if g.layout == torch.sparse_coo else g) ** 2 for g in grads]
    )


CONTRACT = (
    Line(
        make=AdamP,
        settings={"lr": 1e-2},
        variants=(
            {},
            {"weight_decay": 0.1, "delta": 0.3, "wd_ratio": 0.3},
            {"nesterov": True, "betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": 0.05},
        ),
        state=("exp_avg", "exp_avg_sq"),
        smooth={"delta": 100.0},
        sharded={"lr": 0.05, "weight_decay": 0.1, "record_branches": True},
        reductions=1,
        bad=(
            *BAD,
            *EPS_BAD,
            *CAPTURABLE_BAD,
            *ELEMENTWISE_BAD,
            *betas_bad(),
            *PROJECTED_BAD,
        ),
    ),
    Line(
        make=SGDP,
        settings={"lr": 5e-2, "momentum": 0.9},
        variants=(
            {},
            {"momentum": 0.0, "weight_decay": 0.01},
            {"dampening": 0.2, "weight_decay": 0.01, "delta": 0.3, "wd_ratio": 0.3},
            {"nesterov": True, "weight_decay": 0.01},
        ),
        state=("momentum_buffer",),
        counts=False,
        capturable=False,
        smooth={"delta": 100.0},
        sharded={"lr": 0.05, "weight_decay": 0.01, "record_branches": True},
        reductions=1,
        bad=(
            *BAD,
            *EPS_BAD,
            *ELEMENTWISE_BAD,
            *PROJECTED_BAD,
            ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
            ({"momentum": -0.1}, ValueError, "momentum must be in [0, 1), got -0.1"),
            ({"dampening": 1.1}, ValueError, "dampening must be in [0, 1], got 1.1"),
            ({"dampening": -0.1}, ValueError, "dampening must be in [0, 1]"),
            ({"nesterov": True, "momentum": 0.0}, ValueError, "nesterov=True needs momentum > 0"),
            ({"nesterov": True, "dampening": 0.1}, ValueError, "dampening = 0, got momentum=0.9"),
        ),
    ),
    Line(
        make=DiffGrad,
        settings={"lr": 1e-2},
        variants=(
            {},
            {"weight_decay": 0.1, "betas": (0.8, 0.97), "eps": 1e-6},
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
            {"friction_scale": "rms", "weight_decay": 0.05},
        ),
        state=("exp_avg", "exp_avg_sq", "previous_grad"),
        lr_tensor={"capturable": True},
        sharded={"lr": 0.05, "weight_decay": 0.1},
        bad=(
            *BAD,
            *EPS_BAD,
            *CAPTURABLE_BAD,
            *ELEMENTWISE_BAD,
            *betas_bad(),
            (
                {"decoupled_weight_decay": 1},
                TypeError,
                "decoupled_weight_decay must be True or False, got 1",
            ),
            ({"friction_scale": "max"}, ValueError, "friction_scale must be one of"),
            ({"friction_scale": 1.0}, TypeError, "friction_scale must be one of"),
            (
                {"lr": torch.tensor(0.1), "foreach": True},
                ValueError,
                "lr as a tensor needs capturable=True where foreach=True",
            ),
        ),
    ),
    Line(
        make=AdaHessian,
        settings={"lr": 0.05},
        variants=(
            {},
            {"weight_decay": 0.1, "betas": (0.8, 0.97), "eps": 1e-3, "hessian_power": 0.5},
            {"averaging": "row", "hessian_power": 0.0},
            {"averaging": {2: 1, 4: 9}, "update_each": 2},
        ),
        paths=("single", "foreach"),
        state=("exp_avg", "exp_hessian_diag_sq"),
        counters=("hessian_step",),
        ungrouped=("n_samples", "zero_curvature", "process_group"),
        capturable=False,
        differentiable=False,
        complex="complex",
        before=given_curvature,
        backward=lambda optimizer, loss: optimizer.estimate(loss),
        sharded={"lr": 0.05, "weight_decay": 0.1, "averaging": "none"},
        bad=(
            *BAD,
            *EPS_BAD,
            *betas_bad(),
            ({"hessian_power": 1.5}, ValueError, "hessian_power must be in [0, 1], got 1.5"),
            ({"averaging": "kernel"}, ValueError, "averaging must be one of"),
            ({"update_each": 0}, ValueError, "update_each must be at least 1, got 0"),
            ({"n_samples": 0}, ValueError, "n_samples must be at least 1, got 0"),
            ({"zero_curvature": "skip"}, ValueError, "zero_curvature must be"),
            ({"process_group": 3}, TypeError, "process_group must be a ProcessGroup or None"),
        ),
    ),
    Line(
        make=DCTAdamW,
        settings={"lr": 1e-2},
        required={"rank": 3},
        variants=(
            {},
            {"rank": 0.5, "update_gap": 3, "norm": 2, "basis": "dct2", "weight_decay": 0.1},
            {"rotate": False, "transform": "fft", "betas": (0.8, 0.97), "side": "left"},
            {"error_feedback": True, "column_age": True, "basis": "identity"},
            {"rank": 2, "error_feedback": True, "ef_dtype": "int8", "update_gap": 2},
        ),
        paths=("single", "foreach"),
        state=("exp_avg", "exp_avg_sq"),
        matrix_state={"exp_avg": (6, 3), "exp_avg_sq": (6, 3), "indices": (3,)},
        integers=("indices",),
        differentiable=False,
        spoiled="row",
        sharded={"lr": 0.05, "weight_decay": 0.1, "error_feedback": True},
        alone=SIDES,
        reductions=1,
        bad=(
            *BAD,
            *EPS_BAD,
            *CAPTURABLE_BAD,
            *betas_bad(),
            *LOW_RANK_BAD,
            ({"update_gap": 0}, ValueError, "update_gap must be at least 1, got 0"),
            ({"update_gap": 2.0}, TypeError, "update_gap must be an integer, got 2.0"),
            ({"rotate": 1}, TypeError, "rotate must be True or False, got 1"),
            ({"error_feedback": "int8"}, TypeError, "error_feedback must be True or False"),
            ({"column_age": None}, TypeError, "column_age must be True or False, got None"),
            ({"transform": "fast"}, ValueError, "transform must be one of"),
            (
                {"transform": "fft", "basis": "identity"},
                ValueError,
                "transform='fft' needs basis 'dct2' or 'dct3', got 'identity'",
            ),
            (
                {"error_feedback": True, "ef_dtype": "int2"},
                ValueError,
                "ef_dtype must be None, 'int8' or 'int4', got 'int2'",
            ),
            ({"ef_dtype": "int8"}, ValueError, "ef_dtype='int8' needs error_feedback=True"),
        ),
    ),
    Line(
        make=Trion,
        settings={"lr": 5e-2, "adamw_lr": 1e-2},
        required={"rank": 3},
        variants=(
            {},
            {"rank": 0.5, "scale": "kimi", "norm": 2, "basis": "dct2", "weight_decay": 0.1},
            {"scale": "dion", "momentum": 0.8, "ns_steps": 3, "side": "left"},
            {"scale": "none", "basis": "identity", "weight_decay": 0.05},
        ),
        paths=("single", "foreach"),
        state=("exp_avg", "exp_avg_sq"),
        matrix_state={"momentum_buffer": (6, 4)},
        counts_matrices=False,
        differentiable=False,
        spoiled="tensor",
        sharded={"lr": 0.05, "weight_decay": 0.1},
        alone=SIDES,
        reductions=7,
        bad=(
            *BAD,
            *CAPTURABLE_BAD,
            *betas_bad("adamw_betas"),
            *LOW_RANK_BAD,
            ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
            ({"momentum": "0.9"}, TypeError, "momentum must be a number, got str"),
            ({"scale": "big"}, ValueError, "scale must be one of"),
            ({"ns_steps": 0}, ValueError, "ns_steps must be at least 1, got 0"),
            ({"ns_steps": 2.5}, TypeError, "ns_steps must be an integer, got 2.5"),
            ({"ns_dtype": "bf16"}, TypeError, "ns_dtype must be a torch.dtype or None"),
            ({"ns_dtype": torch.int8}, ValueError, "ns_dtype must be a floating dtype"),
            ({"adamw_lr": -1.0}, ValueError, "adamw_lr must be at least 0 and finite, got -1.0"),
            ({"adamw_lr": None}, TypeError, "adamw_lr must be a number, got NoneType"),
            ({"adamw_eps": -1.0}, ValueError, "adamw_eps must be at least 0, got -1.0"),
        ),
    ),
    Line(
        make=ARO,
        settings={"lr": 5e-2},
        variants=(
            {},
            {"base": "row", "nesterov": True, "momentum": 0.8, "rotation": "scqr2"},
            {"base": "adam", "rotation_every": 3, "update_rms": None, "weight_decay": 0.0},
            {"sinkhorn": "alternating", "orientation": "rows"},
            {"rotation": "polar", "rotation_every": 2, "base_steps": 3, "weight_decay": 0.05},
        ),
        paths=("single", "foreach"),
        state=("exp_avg", "exp_avg_sq"),
        matrix_state={"momentum": (4, 6), "rotation": (4, 4)},
        conv_state={"momentum": (4, 27), "rotation": (4, 4)},
        wide=("rotation",),
        differentiable=False,
        complex="does not take complex parameters",
        reductions=1,
        spoiled="nothing",
        sharded={"lr": 0.05},
        bad=(
            *BAD,
            *EPS_BAD,
            *CAPTURABLE_BAD,
            *betas_bad(),
            ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
            ({"momentum": "0.9"}, TypeError, "momentum must be a number, got str"),
            ({"nesterov": 1}, TypeError, "nesterov must be True or False, got 1"),
            ({"base": "svd"}, ValueError, "base must be one of sinkhorn, sign, row, adam"),
            ({"base": 3}, TypeError, "base must be a name or a function, got int"),
            ({"base_steps": 0}, ValueError, "base_steps must be at least 1, got 0"),
            ({"sinkhorn": "both"}, ValueError, "sinkhorn must be one of"),
            ({"rotation": "svd"}, ValueError, "rotation must be one of"),
            ({"rotation_every": 0}, ValueError, "rotation_every must be at least 1, got 0"),
            ({"rotation_every": 1.5}, TypeError, "rotation_every must be an integer, got 1.5"),
            ({"qr_eps": 0.0}, ValueError, "qr_eps must be above 0 and finite, got 0.0"),
            ({"update_rms": 0}, ValueError, "update_rms must be above 0 and finite, got 0"),
            ({"update_rms": "0.2"}, TypeError, "update_rms must be a number, got str"),
            ({"orientation": "left"}, ValueError, "orientation must be one of"),
            ({"algorithm": "sgd"}, ValueError, "algorithm must be one of aro, adamw"),
            ({"batch_dims": -1}, ValueError, "batch_dims must be at least 0, got -1"),
            ({"share_rotation": 1}, TypeError, "share_rotation must be True or False, got 1"),
            ({"share_rotation": True, "base": "adam"}, ValueError, "neither base='adam' nor"),
            ({"rotation": "scqr", "orientation": "rows"}, ValueError, "needs m <= n, a weight of"),
        ),
    ),
    Line(
        make=Langevin,
        settings={"lr": 0.2},
        required={"temperature": 0.0},  # two runs draw different noise
        suits={"manifold": "euclidean"},  # a sphere needs two entries a row
        paths=("single", "foreach"),
        counts=False,
        capturable=False,
        differentiable=False,
        decays=False,
        spoiled="nothing",
        sharded={"lr": 0.05},
        bad=(
            *(row for row in BAD if "weight_decay" not in row[0]),
            ({"lr": 0.0}, ValueError, "lr must be above 0, got 0"),
            ({"temperature": -0.1}, ValueError, "temperature must be at least 0, got -0.1"),
            ({"temperature": float("inf")}, ValueError, "temperature must be finite, got inf"),
            ({"manifold": "torus"}, ValueError, "manifold must be one of"),
        ),
    ),
)
