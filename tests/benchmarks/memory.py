"""Memory above the weights that long rows need: ``python tests/benchmarks/memory.py [--quick]``.

6 × 768, every 8th position a target, in a process of its own per length: resident memory only ever grows.
"""

import resource
import subprocess
import sys

from harness import main, table

FULL_QUERIES = 4_096
"""At 131,072 tokens only so many queries see the whole row: any block needs what the first blocks need, and all of them
take minutes."""


def measure(length: int, layers: int, attention: str) -> int:
    """Bytes that a pass adds to the peak of resident memory, in this process."""
    import torch

    from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
    from gau_alpha.attention.kernels import Blocked
    from gau_alpha.visibility import Full, Window

    class FullAtFirst(Blocked):
        def __call__(self, query, key, value, plan, query_positions=None, *others):
            if query_positions is None:
                first = torch.arange(FULL_QUERIES)[None]
                super().__call__(query, key, value, plan, first, *others)
                return value.clone()
            return super().__call__(query, key, value, plan, query_positions[:, :FULL_QUERIES], *others)

    method = AttentionMethod(visibility=Window(32) if attention == "window" else Full())
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(12_000, num_hidden_layers=layers), method).eval()
    ids = torch.randint(2, 12_000, (1, length))
    with torch.no_grad():
        model(ids[:, :256])  # libraries have set up what they need
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if attention == "full at first":
            model.kernel = FullAtFirst()
        # 1,024 targets at a time, as in evaluation
        model(ids, target_positions=torch.arange(0, length, length // 1_024)[None])
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def report(quick: bool) -> list[str]:
    """Peak memory of long rows."""
    cases = [(8_192, 2, "full"), (32_768, 2, "window")] if quick else [
        (32_768, 6, "full"), (131_072, 6, "full at first"), (131_072, 6, "window"),
    ]  # fmt: skip
    rows = []
    for length, layers, attention in cases:
        command = [sys.executable, __file__, str(length), str(layers), attention]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append([f"{length:,} tokens", attention, str(layers), f"{int(done.stdout) / 2**30:.2f} GiB"])
    return [
        "## Memory above the weights, hidden size 768", "", *table(["row", "attention", "layers", "peak"], rows),
        f"*full at first*: {FULL_QUERIES:,} queries see the whole row, the others 128 keys; each block of queries is",
        "freed before the next, so that the peak is that of full attention.", "",
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].isdigit():
        print(measure(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
    else:
        main(report)
