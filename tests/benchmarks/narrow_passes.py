"""Long passes in float32 and under bfloat16 autocast: ``python tests/benchmarks/narrow_passes.py [--quick]``.

The tiny model, every 8th position a target. Which is faster is the processor's affair, so products of both are taken in
the same turns. Imports nothing but what older commits have, too: with another checkout on ``PYTHONPATH`` that one is
measured, which the last line on stderr tells.
"""

import sys

import torch
from harness import MatrixProduct, alternately, main, ratios, table

import gau_alpha
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.presets import resolve_method

CONFIG = GAUAlphaConfig(258, 192, 384, 64, 4)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def report(quick: bool) -> list[str]:
    """Passes of methods that see part of a long row, and of softmax."""
    long, short, runs = (4_096, 512, 2) if quick else (65_536, 4_096, 7)
    matrices = {name: MatrixProduct(dtype) for name, dtype in DTYPES.items()}
    times = alternately(dict(matrices), runs)
    rows = [["product of 2048³", *(str(times[name]) for name in DTYPES), ratios(times["float32"], times["bfloat16"])]]
    for name, length in (("windowed", long), ("streaming_llm", long), ("lm_infinite", long), ("softmax", short)):
        torch.manual_seed(0)
        method = resolve_method(name, AttentionMethod(), 64)
        model = GAUAlphaForMaskedLM(CONFIG, method).eval()
        ids, targets = torch.randint(2, 258, (1, length)), torch.arange(0, length, 8)[None]

        def run(dtype, model=model, ids=ids, targets=targets):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                model(ids, target_positions=targets)

        times = alternately({key: lambda dtype=dtype, run=run: run(dtype) for key, dtype in DTYPES.items()}, runs)
        each = [str(times[key]) for key in DTYPES]
        rows.append([f"{name}, {length:,} tokens", *each, ratios(times["float32"], times["bfloat16"])])
    heads = ["", *DTYPES, "float32 over bfloat16"]
    print(f"gau_alpha of {gau_alpha.__file__}", file=sys.stderr)
    return ["## Passes in float32 and bfloat16, 4 × 192", "", *table(heads, rows)]


if __name__ == "__main__":
    main(report)
