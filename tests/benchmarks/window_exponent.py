"""How the cost of windowed attention grows with the length: ``python tests/benchmarks/window_exponent.py``.

Fits time and peak memory of the tiny model's forward pass to length^e between 8,192 and 65,536 tokens.
"""

import resource
import statistics
import subprocess
import sys
import time

import numpy as np

LENGTHS = [8_192, 16_384, 32_768, 65_536]
RUNS = 7


def measure(length: int) -> tuple[float, int]:
    """Seconds (median) of a pass and what it adds to resident memory in bytes, in this process."""
    import torch

    from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
    from gau_alpha.visibility import Window

    model = GAUAlphaForMaskedLM(GAUAlphaConfig(258, 192, 384, 64, 4), AttentionMethod(visibility=Window(32))).eval()
    targets = torch.arange(0, length, 8)[None]
    with torch.no_grad():
        model(torch.randint(0, 256, (1, 256)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times = []
        for _ in range(RUNS):
            ids = torch.randint(0, 256, (1, length))
            start = time.perf_counter()
            model(ids, target_positions=targets)
            times.append(time.perf_counter() - start)
    return statistics.median(times), 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main() -> None:
    results = []
    for length in LENGTHS:  # each in a process of its own: peak memory only ever grows
        done = subprocess.run([sys.executable, __file__, str(length)], capture_output=True, text=True, check=True)
        seconds, memory = map(float, done.stdout.split())
        results.append((seconds, memory))
        print(f"{length:7,} tokens  {seconds:7.3f} s  {memory / 2**20:7.0f} MiB above the weights")
    for name, values in zip(("time", "memory"), zip(*results, strict=True), strict=True):
        exponent = np.polyfit(np.log(LENGTHS), np.log(values), 1)[0]
        print(f"{name} grows with length^{exponent:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*measure(int(sys.argv[1])))
    else:
        main()
