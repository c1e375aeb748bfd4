"""What a GPU would do and wait for, counted without one.

``python benchmarks/gpu_counts.py`` runs the torch backend on the pretended GPU of
tests/pretended_gpu.py and prints a GitHub-markdown table. Nothing is timed. See README.md
beside this file.
"""

import pathlib
import sys

import numpy as np
import pytest
from reporting import announce, describe_run, write_table

from skhdkde import HighDimKernelDensity
from skhdkde._pairwise import torch_backend

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
import pretended_gpu

ROWS, COLS = 4096, 256  # of a tile: one block of queries, and points of a tile
TILES = 4, 12
COMPACT = {"kernel": "epanechnikov", "bandwidth": 6.0}
# (features, dtype, options)
CASES = [
    (16, np.float32, {}),
    (128, np.float32, {}),
    (768, np.float32, {}),
    (768, np.float64, {}),
    (16, np.float32, COMPACT),
]
METHODS = {
    "score_samples": lambda kde, X: kde.score_samples(X),
    "gradient": lambda kde, X: kde.log_density_gradient(X),
    "diagnose": lambda kde, X: kde.diagnose(X),
}
# The same numbers of revision d9c8a5e, before the torch backend was rewritten: passes,
# waits and kB down of a tile, waits of a block.
BEFORE = {
    (16, "float32", "gaussian", "score_samples"): (3, 1, 16.4, 1),
    (16, "float32", "gaussian", "gradient"): (9, 4, 4520, 0),
    (16, "float32", "gaussian", "diagnose"): (10, 7, 1690, 0),
    (128, "float32", "gaussian", "score_samples"): (3, 1, 16.4, 1),
    (128, "float32", "gaussian", "gradient"): (9, 4, 6360, 0),
    (128, "float32", "gaussian", "diagnose"): (10, 7, 1690, 0),
    (768, "float32", "gaussian", "score_samples"): (6.9, 3.75, 390, 3),
    (768, "float32", "gaussian", "gradient"): (9.9, 5.75, 17200, 3),
    (768, "float32", "gaussian", "diagnose"): (10.5, 8, 2050, 12),
    (768, "float64", "gaussian", "score_samples"): (3, 3, 33, 0),
    (768, "float64", "gaussian", "gradient"): (9, 4, 33700, 0),
    (768, "float64", "gaussian", "diagnose"): (10, 7, 2300, 0),
    (16, "float32", "epanechnikov", "score_samples"): (9, 4, 16800, 0),
    (16, "float32", "epanechnikov", "gradient"): (14, 6, 25800, 0),
    (16, "float32", "epanechnikov", "diagnose"): (13, 9, 19100, 0),
}


def counted(patch, n_tiles, d, dtype, options, method):
    """Passes over tiles, waits, bytes down and up of a call, not the first."""
    rng = np.random.default_rng(0)
    Y, X = (rng.standard_normal((n, d)).astype(dtype) for n in (n_tiles * COLS, ROWS))
    tile = ROWS * COLS
    size = tile * np.dtype(dtype).itemsize // 4  # has half as many entries of float64
    patch.setattr(torch_backend, "ON_GPU", (ROWS, size, 2**23, 1))
    with pretended_gpu.pretended_gpu(patch):
        kde = HighDimKernelDensity(
            **{"backend": "torch", "n_jobs": 1, "bandwidth": 1.0, **options}
        ).fit(Y)
        METHODS[method](kde, X)
        pretended_gpu.counts = pretended_gpu.Counts()
        METHODS[method](kde, X)
        counts = pretended_gpu.counts
    passes = sum(min(n, tile) for _, n in counts.operations if n >= tile / 4) / tile
    waits = counts.waits + len(counts.downloads)
    launches = len(counts.operations)
    moved = sum(counts.downloads) / 1e3, sum(counts.uploads) / 1e3
    return np.array([passes, waits, *moved, launches])


def short(number):
    """A number in three digits, or more of those before the point."""
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def rows():
    """What a tile adds, and what a block of queries has beside."""
    with pytest.MonkeyPatch.context() as patch:
        for d, dtype, options in CASES:
            for method in METHODS:
                kernel = options.get("kernel", "gaussian")
                case = d, np.dtype(dtype).name, kernel, method
                announce(f"{method}: {kernel}, d = {d}, {case[1]}")
                few, many = (counted(patch, n, d, dtype, options, method) for n in TILES)
                of_tile = np.maximum(many - few, 0.0) / (TILES[1] - TILES[0])
                of_block = few - TILES[0] * of_tile
                now = *of_tile[:3], of_block[1]
                numbers = zip(BEFORE[case], now, strict=True)
                pairs = (f"{short(before)} / {short(after)}" for before, after in numbers)
                yield *case, *pairs, f"{of_tile[4]:.0f}"


def main():
    print(describe_run("torch", remark="no GPU: pretended"))
    write_table(
        f"Before / now: of a tile of {ROWS} x {COLS}, and of a block of {ROWS} queries",
        "features|dtype|kernel|method|passes of a tile|waits of a tile|"
        "kB to the host of a tile|waits of a block|operations of a tile",
        rows(),
    )


if __name__ == "__main__":
    main()
