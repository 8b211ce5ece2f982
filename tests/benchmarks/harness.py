"""Pairs measured in turns, floors from the matrix rate of the same run, tables with the machine's description.

A part of the benchmarks is a function of ``quick`` that returns Markdown lines; ``main`` runs it alone, ``run.py`` all.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Part = Callable[[bool], list[str]]
"""Called with ``quick``; returns Markdown lines."""

RUNS = 7


@dataclass(frozen=True)
class Timing:
    """Seconds of each run."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        unit, factor = ("s", 1) if self.median >= 1 else ("ms", 1e3)
        low, middle, high = (factor * value for value in (min(self.seconds), self.median, max(self.seconds)))
        return f"{middle:.3g} {unit} ({low:.3g} to {high:.3g})"


def alternately(works: dict[str, Callable[[], object]], runs: int = RUNS, warmups: int = 1) -> dict[str, Timing]:
    """Time pieces of work in turns, so that a slow moment of the machine does not hit one of them only."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for run in range(warmups + runs):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if run >= warmups:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(measured)) for name, measured in seconds.items()}


class MatrixProduct:
    """A product to take among other works: its rate is the machine's, in the same minutes."""

    def __init__(self, dtype: torch.dtype = torch.float32, size: int = 2048, device: str = "cpu") -> None:
        self.left, self.right = torch.randn(2, size, size, device=device).to(dtype).unbind()
        self.flops = 2 * size**3

    def __call__(self) -> torch.Tensor:
        return self.left @ self.right

    def rate(self, timing: Timing) -> float:
        """FLOP/s."""
        return self.flops / timing.median


def ratios(slower: Timing, faster: Timing) -> str:
    """How many times as long, run by run: the median, and the range."""
    each = sorted(a / b for a, b in zip(slower.seconds, faster.seconds, strict=True))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table; all columns but the first are flush right."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def machine() -> str:
    """Processor, threads and versions, on one line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    kinds = torch.backends.cpu.get_cpu_capability()
    return (
        f"{_processor()}{gpu}, {torch.get_num_threads()} threads, {kinds}"
        f"{', AMX' if _has_flag('amx_bf16') else ''}{', AVX512-BF16' if _has_flag('avx512_bf16') else ''}; "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def main(part: Part) -> None:
    """Run a part alone: ``--quick`` for smaller sizes and fewer runs."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer runs")
    quick = parser.parse_args().quick
    print(machine(), end="\n\n")
    print("\n".join(part(quick)))


def _cpuinfo(key: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(key)), "")
    except OSError:  # not Linux
        return ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _has_flag(flag: str) -> bool:
    return flag in _cpuinfo("flags").split()
