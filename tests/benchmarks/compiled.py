"""A training step with and without ``torch.compile``: ``python tests/benchmarks/compiled.py [--quick]``.

6 × 768, vocabulary 12,000, 2,048 tokens in rows of 64, float32. The blocks are compiled: what lies between them, where
each row's targets are counted, cannot be.
"""

import time
from functools import partial

import torch
from harness import alternately, main, ratios, table
from training import OurStep, batch_of

TOKENS = 2_048


def report(quick: bool) -> list[str]:
    """Steps of a compiled model beside steps of one that is not, and how long the first takes."""
    layers, runs = (2, 3) if quick else (6, 7)
    rows = []
    for dropout in (0.1, 0.0):
        batch = batch_of(64, TOKENS)
        plain, compiled = OurStep(layers, torch.float32, dropout), OurStep(layers, torch.float32, dropout)
        for block in compiled.module.model.gau_alpha.encoder.blocks():
            block.compile()
        start = time.perf_counter()
        compiled(batch)
        first = time.perf_counter() - start
        times = alternately({"plain": partial(plain, batch), "compiled": partial(compiled, batch)}, runs, 2)
        rows.append(
            [f"dropout {dropout}", str(times["plain"]), str(times["compiled"]),
             ratios(times["compiled"], times["plain"]), f"{first:.0f} s"]
        )  # fmt: skip
    heads = ["step", "as it is", "compiled", "× time as it is", "first step"]
    return [f"## torch.compile, {layers} × 768, rows of 64", "", *table(heads, rows)]


if __name__ == "__main__":
    main(report)
