"""How long each kernel takes for a method at a length: ``python tests/benchmarks/kernel_times.py``.

Kernels take turns within one process; printed are medians, their spread, and the ratio to ``blocked``. The floor is the
time that the products alone need at the matrix rate measured in the same run. ``--quick`` leaves out the long rows.
"""

import argparse
import statistics
import time

import torch
from fused import Fused

from gau_alpha.attention.kernels import KERNELS
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.position import ALiBi, ReRoPE
from gau_alpha.visibility import Window

METHODS = {
    "softmax": AttentionMethod(),
    "alibi": AttentionMethod(position=ALiBi()),
    "rerope": AttentionMethod(position=ReRoPE(32, 64)),
    "windowed": AttentionMethod(visibility=Window(32)),
}
KEY_SIZE, VALUE_WIDTH, RUNS = 128, 1536, 7


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def matrix_rate() -> float:
    """FLOP/s of a float32 product of this shape's size."""
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / min(seconds(lambda: left @ right) for _ in range(10))


def compare(name: str, length: int, rate: float) -> None:
    plan = METHODS[name].plan(SequenceLayout.of(length, torch.device("cpu")), KEY_SIZE)
    query, key, value = (torch.randn(1, length, width) for width in (KEY_SIZE, KEY_SIZE, VALUE_WIDTH))
    kernels = {kernel: build() for kernel, build in KERNELS.items()}
    if len(plan.branches) == 1:
        kernels["fused"] = Fused()
    times: dict[str, list[float]] = {kernel: [] for kernel in kernels}
    for run in range(RUNS + 1):
        for kernel, attend in kernels.items():
            taken = seconds(lambda attend=attend: attend(query, key, value, plan))
            if run:  # the first warms up
                times[kernel].append(taken)
    floor = 2 * length**2 * (KEY_SIZE + VALUE_WIDTH) / rate
    blocked = statistics.median(times["blocked"])
    for kernel, taken in times.items():
        median = statistics.median(taken)
        spread = f"{min(taken) * 1e3:.1f} to {max(taken) * 1e3:.1f}"
        print(
            f"{name:10} {length:6} {kernel:10} {median * 1e3:9.1f} ms ({spread})"
            f"  {median / blocked:6.2f} × blocked  {floor / median:5.2f} of the full-attention floor"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only 64 and 1,024 tokens")
    lengths = [64, 1024] if parser.parse_args().quick else [64, 1024, 4096]
    rate = matrix_rate()
    print(f"{torch.get_num_threads()} threads, {rate / 1e9:.0f} GFLOP/s in float32 products")
    with torch.no_grad():
        for name in METHODS:
            for length in lengths:
                compare(name, length, rate)


if __name__ == "__main__":
    main()
