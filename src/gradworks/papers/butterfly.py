"""Butterfly (2020, arXiv:1903.05895): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="butterfly",
    title="Learning Fast Algorithms for Linear Transforms Using Butterfly Factorizations",
    date="2020-12-28",
    authors=5,
    arxiv="1903.05895",
    venue="ICML 2019",
    code="https://github.com/HazyResearch/butterfly",
    licence="Apache-2.0",
    summary=(
        "A linear layer whose matrix is a product of sparse butterfly factors: N log N parameters "
        "and operations instead of N squared, with the Fourier, cosine, sine, Hadamard and "
        "Hartley transforms among its exact members. Gradient descent can find these fast "
        "algorithms from the dense matrix alone, permutation included. Use it to compress dense "
        "layers, or to put a fast transform that learns inside a network."
    ),
    area="layers",
    package="gradworks.layers.butterfly",
    usage="""\
from gradworks.layers.butterfly import Butterfly, recover_transform

layer = Butterfly(1024, 1024)  # in place of nn.Linear
found = recover_transform(matrix, restarts=32)  # the fast algorithm of a matrix
""",
    tags=("layer", "structured matrices", "fft", "compression", "permutation"),
)

CLAIMS = (
    Claim(
        id="fourier",
        statement="Recovers the fast Fourier transform from its matrix to working precision.",
        published=(
            "RMSE for N = 8, 16, .., 1024: 3.1e-6, 4.6e-6, 8.7e-6, 1.0e-5, 2.0e-5, 3.8e-5, "
            "8.0e-5, 5.7e-5."
        ),
        holds_when=(
            "Best RMSE with hard permutations below 1e-4 in every cell (transform, N) of the "
            "preset, while a random matrix stays above 1e-2."
        ),
        setting="N = 8 to 1024, up to 320 random trials.",
        scaled_down="N up to 64, 32 restarts in one tensor program.",
        primary=True,
    ),
    Claim(
        id="cosine",
        statement="Recovers the cosine transform.",
        published="RMSE 4.4e-6 .. 7.3e-5 (all below 1e-4).",
        holds_when="Best RMSE with hard permutations below 1e-4 at every size of the preset.",
        setting="N = 8 to 1024.",
        scaled_down="N up to 64.",
    ),
    Claim(
        id="sine",
        statement="Recovers the sine transform.",
        published="RMSE 1.1e-6 .. 5.1e-5.",
        holds_when="Best RMSE with hard permutations below 1e-4 at every size of the preset.",
        setting="N = 8 to 1024.",
        scaled_down="N up to 64.",
    ),
    Claim(
        id="convolution",
        statement="Recovers circular convolution, but for the largest size.",
        published=(
            "RMSE 4.0e-6, 2.5e-5, 6.5e-5, 7.6e-5, 5.9e-5, 7.8e-5, 6.3e-5, and 1.9e-2 at N = 1024."
        ),
        holds_when="Best RMSE with hard permutations below 1e-4 at every size of the preset.",
        setting="N = 8 to 1024.",
        scaled_down="N = 8 and 16.",
    ),
    Claim(
        id="hadamard-hartley",
        statement="Recovers the Hadamard and Hartley transforms.",
        published="RMSE 8.8e-7 .. 6.1e-5 (Hadamard), 3.4e-6 .. 4.5e-5 (Hartley).",
        holds_when="Best RMSE with hard permutations below 1e-4 at every size of the preset.",
        setting="N = 8 to 1024.",
        scaled_down="N up to 64.",
    ),
    Claim(
        id="controls",
        statement="Does not recover matrices that have no such fast algorithm.",
        published="RMSE 3.4e-2 .. 2e-3 (Legendre), 6e-3 .. (Hilbert), 1.4e-1 .. 3.1e-2 (random).",
        holds_when="The random matrix stays above 1e-2.",
        setting="N = 8 to 1024.",
        scaled_down="N up to 64.",
    ),
    Claim(
        id="inference",
        statement="Multiplies faster than a dense matrix.",
        published=(
            "One thread, one vector, N = 1024: FFT 22x, DCT 11x, butterfly 4.4x; N = 256: 3.2x, "
            "1.6x, 0.58x; N = 4096: 215x, 131x, 66x."
        ),
        holds_when=(
            "A collapsed layer multiplies at least 3 times as fast as a dense one at N = 1024 and "
            "8 times at 4096, measured in turns in one process."
        ),
        setting="Compiled code, one CPU thread.",
        scaled_down="Pure PyTorch, batch 64.",
    ),
    Claim(
        id="training",
        statement="Trains faster than a dense layer.",
        published="N = 1024 / 4096 / 8192: butterfly 1.24x / 4.6x / 9.0x (FFT 1.2x / 14x / 31x).",
        holds_when=(
            "The ratio to a dense layer, forward and backward, is printed with its interval."
        ),
        setting="GPU kernel of the authors.",
        scaled_down="Pure PyTorch on the CPU.",
    ),
    Claim(
        id="compression",
        statement="Replacing a hidden layer raises accuracy at a fraction of the parameters.",
        published=(
            "+3.9 points over the unconstrained layer, 4x faster inference, 40x fewer parameters."
        ),
        holds_when=(
            "Test accuracy against the dense layer at equal tuning, paired over seeds: interval "
            "above 0."
        ),
        setting="CIFAR-10, one hidden layer replaced.",
        scaled_down="One hidden layer on the 8x8 digits, 5 seeds.",
    ),
)
