"""Whether bfloat16 products pay on this machine: measured, not guessed.

On a processor with AMX or a GPU they are several times as fast as float32; with AVX512-BF16 alone they can be slower.
"""

import os
import time

import torch

WORTH = 1.3
"""How much faster bfloat16 products have to be: casts, and norms and scores in float32, eat some of it."""

_DECIDED = "GAU_ALPHA_PRECISION"  # the processes that Lightning starts are told by their environment


def measured_precision(accelerator: str) -> str:
    """Choose between float32 and mixed bfloat16 by timing products, and print the decision.

    Draws no random numbers. Processes that this one starts take over its decision.

    Args:
        accelerator: Lightning's name: ``auto``, ``cpu``, ``gpu``, ``cuda``, …

    Returns:
        ``bf16-mixed`` or ``32-true``.

    Raises:
        ValueError: If processes were started side by side: each would decide for itself.
    """
    if _DECIDED in os.environ:
        return os.environ[_DECIDED]
    if any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        raise ValueError(
            "precision auto is measured by one process, and several were started side by side: give "
            "trainer.precision 32-true or bf16-mixed."
        )
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    plain, half = product_rates(torch.device("cuda" if on_gpu else "cpu"))
    decision = "bf16-mixed" if half > WORTH * plain else "32-true"
    print(
        f"precision: {decision} (products at {plain / 1e9:,.0f} GFLOP/s in float32, {half / 1e9:,.0f} in bfloat16; "
        f"bfloat16 is taken from {WORTH} times on)"
    )
    os.environ[_DECIDED] = decision
    return decision


def product_rates(device: torch.device, size: int = 1024, runs: int = 5) -> tuple[float, float]:
    """Time products in turns.

    Args:
        device: Where.
        size: Rows and columns of the factors.
        runs: The best of so many, after one to warm up.

    Returns:
        FLOP/s in float32 and in bfloat16.
    """
    factors = [torch.ones(size, size, dtype=dtype, device=device) for dtype in (torch.float32, torch.bfloat16)]
    best = [float("inf"), float("inf")]
    for run in range(runs + 1):
        for number, factor in enumerate(factors):
            start = time.perf_counter()
            (factor @ factor)[0, 0].item()  # waits for a GPU
            if run:
                best[number] = min(best[number], time.perf_counter() - start)
    return 2 * size**3 / best[0], 2 * size**3 / best[1]
