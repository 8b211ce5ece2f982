"""A GPU's share of its matrix rate, in one command: ``python tests/benchmarks/gpu.py``.

24 × 768 in bfloat16: a training step at 512 tokens, and an evaluation pass over 32,768 tokens (64 times 512). Printed
are the FLOPs of the products over the rate of an 8192³ product, measured in turns. Without a GPU it says so.
"""

import sys
import time

import torch
from harness import MatrixProduct, Timing, machine, table
from torch.utils.flop_counter import FlopCounterMode

from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.training.optimizers import parameter_groups

VOCABULARY, ROWS, LENGTH, LONG, RUNS = 12_000, 64, 512, 32_768, 7


def synchronised(work) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def share(name: str, work, matrix: MatrixProduct) -> list[str]:
    with FlopCounterMode(display=False) as counter:
        work()
    flops = counter.get_total_flops()
    works = {"matrix": matrix, "ours": work}
    seconds: dict[str, list[float]] = {key: [] for key in works}
    for run in range(RUNS + 3):
        for key, one in works.items():
            taken = synchronised(one)
            if run >= 3:
                seconds[key].append(taken)
    times = {key: Timing(tuple(measured)) for key, measured in seconds.items()}
    rate = matrix.rate(times["matrix"])
    reached = flops / times["ours"].median
    return [name, str(times["ours"]), f"{reached / 1e12:.0f}", f"{rate / 1e12:.0f}", f"{reached / rate:.2f}"]


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("No CUDA device: run this on a machine with a GPU (the targets are stated for an H100).")
    module = GAUAlphaModule(GAUAlphaConfig(VOCABULARY, num_hidden_layers=24), LENGTH).cuda()
    optimizer = torch.optim.AdamW(parameter_groups(module.model, 0.01), lr=1e-4, fused=True)
    ids = torch.randint(2, VOCABULARY, (ROWS, LENGTH), device="cuda")
    labels = torch.where(torch.rand(ids.shape, device="cuda") < 0.15, ids, -100)
    long_ids = torch.randint(2, VOCABULARY, (1, LONG), device="cuda")
    targets = torch.randperm(LONG, device="cuda")[: LONG * 15 // 100].sort().values[None]  # (1, T)

    def train() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            nll, _, count = module._evaluate({"input_ids": ids, "labels": labels})
        (nll / count).backward()
        optimizer.step()

    def evaluate() -> None:
        module.eval()
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            module.model(long_ids, target_positions=targets)
        module.train()

    matrix = MatrixProduct(torch.bfloat16, 8192, "cuda")
    rows = [
        share(f"training step, {ROWS} × {LENGTH} tokens", train, matrix),
        share(f"evaluation pass, {LONG:,} tokens", evaluate, matrix),
    ]
    print(machine(), end="\n\n")
    print("\n".join(table(["24 × 768, bfloat16", "time", "TFLOP/s", "matrix rate, TFLOP/s", "share"], rows)))
    print("Targets on an H100: 0.45 in training, 0.60 in evaluation.")


if __name__ == "__main__":
    main()
