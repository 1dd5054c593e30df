"""What the paper claims and what decides it here, fixed before the first run."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion

__all__ = ["CLAIMS"]

# Two solutions lie in one basin when the loss climbs by at most this on the line between them.
CLIMB = 0.02


def _basin(workload: str, what: str) -> tuple[Criterion, ...]:
    """No climb within the basin in 80 % of the seeds, and a tall one to another start."""
    return (
        Criterion(
            name=f"A to B, {what}",
            kind="threshold",
            metric="climb_ab",
            arm="network",
            direction="lower",
            reference=CLIMB,
            workloads=(workload,),
        ),
        Criterion(
            name=f"A to C, {what}",
            kind="threshold",
            metric="climb_ac",
            arm="network",
            direction="lower",
            reference=CLIMB,
            workloads=(workload,),
        ),
        # More than half of the seeds beyond chance, and four fifths of them in the sample.
        Criterion(
            name=f"share of seeds in one basin, {what}",
            kind="threshold",
            metric="same_basin",
            arm="network",
            direction="higher",
            reference=0.5,
            min_effect=0.3,
            workloads=(workload,),
        ),
        Criterion(
            name=f"control climbs tenfold, {what}",
            kind="threshold",
            metric="control_ratio",
            arm="network",
            direction="higher",
            reference=10.0,
            workloads=(workload,),
        ),
    )


CLAIMS = (
    Claim(
        id="bulk-and-outliers",
        statement="Most eigenvalues of the loss Hessian lie near zero and a few stand out.",
        published="Stated in the abstract and shown in histograms; no figure printed.",
        holds_when=(
            "After training, at every width, at least 70 % of the eigenvalues are below 1 % of the "
            "largest in magnitude, and the gap rule finds at least one outlier."
        ),
        setting="MNIST, 1,000 examples, small fully connected networks, hidden 10/30/50/70",
        scaled_down="5,000-image sample of MNIST at 14x14 pixels (quick: blobs); our outlier rule",
        criteria=(
            Criterion(
                name="share near zero",
                kind="threshold",
                metric="fraction_small_least",
                arm="network",
                reference=0.7,
                workloads=("widths",),
            ),
            Criterion(
                name="outliers exist",
                kind="threshold",
                metric="num_outliers_least",
                arm="network",
                reference=0.0,
                min_effect=1.0,
                workloads=("widths",),
            ),
        ),
    ),
    Claim(
        id="width",
        statement="With the data fixed, more parameters add to the bulk only.",
        published="Stated in the abstract; no figure printed.",
        holds_when=(
            "From the narrowest to the widest network the share near zero rises; the rank "
            "correlation of width and number of outliers is compatible with 0 and not with 1; the "
            "slope of log t_1 on log P lies within 0.35 of 0."
        ),
        setting="MNIST, 1,000 examples, hidden 10/30/50/70",
        scaled_down="5,000-image sample of MNIST at 14x14 pixels (quick: blobs); our outlier rule",
        primary=True,
        criteria=(
            Criterion(
                name="the bulk grows",
                kind="threshold",
                metric="fraction_small_rise",
                arm="network",
                reference=0.0,
                workloads=("widths",),
            ),
            Criterion(
                name="outliers do not",
                kind="rate",
                metric="num_outliers_spearman",
                arm="network",
                reference=0.0,
                rival=1.0,
                workloads=("widths",),
            ),
            Criterion(
                name="t_1 does not grow",
                kind="threshold",
                metric="largest_slope",
                arm="network",
                direction="lower",
                reference=0.35,
                workloads=("widths",),
            ),
            Criterion(
                name="t_1 does not shrink",
                kind="threshold",
                metric="largest_slope",
                arm="network",
                direction="higher",
                reference=-0.35,
                workloads=("widths",),
            ),
        ),
    ),
    Claim(
        id="classes",
        statement="With the size fixed, the number of outliers follows the number of classes.",
        published="'About as many as classes' (recalled); no figure printed.",
        holds_when="The slope of outliers on classes is above 0 and at least 0.5.",
        setting="MNIST and Gaussian clusters",
        scaled_down="2 to 10 digits of the MNIST sample at 14x14 pixels (quick: 2, 5, 10 blobs)",
        criteria=(
            Criterion(
                name="slope on classes",
                kind="threshold",
                metric="num_outliers_slope",
                arm="network",
                reference=0.0,
                min_effect=0.5,
                workloads=("classes",),
            ),
        ),
    ),
    Claim(
        id="separation",
        statement="Less separable data change the outliers, not the bulk.",
        published="Stated in the abstract; no figure printed.",
        holds_when=(
            "The largest eigenvalue is larger at the smallest distance of the clusters than at the "
            "largest, and its logarithm moves further than that of the bulk's width (95 % quantile "
            "of the magnitudes outside the outliers)."
        ),
        setting="Gaussian clusters",
        scaled_down="5 blobs in 10 dimensions, distances of the centres from the origin 1 to 5",
        criteria=(
            Criterion(
                name="outliers grow",
                kind="threshold",
                metric="largest_move",
                arm="network",
                reference=0.0,
                workloads=("separations",),
            ),
            Criterion(
                name="more than the bulk",
                kind="threshold",
                metric="move_beyond_bulk",
                arm="network",
                reference=0.0,
                workloads=("separations",),
            ),
        ),
    ),
    Claim(
        id="negative",
        statement="Small negative eigenvalues remain after long training.",
        published="Shown in plots; no figure printed.",
        holds_when=(
            "The smallest eigenvalue is below 0 at every width by more than 1e-4 of the largest, "
            "and above minus a tenth of it."
        ),
        setting="MNIST, 1,000 examples, small fully connected networks",
        scaled_down="2,000 steps on the MNIST sample at 14x14 pixels (quick: blobs)",
        criteria=(
            Criterion(
                name="negative",
                kind="threshold",
                metric="smallest_nearest_zero",
                arm="network",
                direction="lower",
                reference=-1e-4,
                workloads=("widths",),
            ),
            Criterion(
                name="small",
                kind="threshold",
                metric="smallest_furthest",
                arm="network",
                direction="higher",
                reference=-0.1,
                workloads=("widths",),
            ),
        ),
    ),
    Claim(
        id="batch-size",
        statement="Larger batches end at larger outlier eigenvalues.",
        published="Shown in plots; no figure printed.",
        holds_when=(
            "From the same start, at the same rate and number of steps, the largest eigenvalue "
            "after full batches exceeds that after batches of 10."
        ),
        setting="MNIST, 1,000 examples",
        scaled_down="MNIST sample at 14x14 pixels, hidden 30 (quick: blobs); equal steps",
        criteria=(
            Criterion(
                name="batch 1000 against 10",
                kind="superiority",
                metric="largest",
                arm="batch-1000",
                baseline="batch-10",
                scale="ratio",
                workloads=("batches",),
            ),
        ),
    ),
    Claim(
        id="one-basin",
        statement="Large- and small-batch solutions lie in the same basin.",
        published="A straight path without a barrier, CIFAR-10 (setting recalled); no figure.",
        holds_when=(
            "On the line from the large-batch solution A to its small-batch continuation B, and to "
            "the small-batch solution C from the same start, the loss climbs by at most 0.02 nats, "
            "in at least 80 % of the seeds, while it climbs more than ten times as much towards a "
            "solution D from another start."
        ),
        setting="CIFAR-10, convolutional network (recalled)",
        scaled_down="digits (quick and full) and small convolutional networks on the MNIST sample",
        criteria=(
            *_basin("basin-digits", "digits"),
            *_basin("basin-conv", "conv"),
            *_basin("basin-conv-norm", "conv with batch norm"),
        ),
    ),
)
