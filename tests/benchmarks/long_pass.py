"""One 4,096-token pass beside the plain model's: ``python tests/benchmarks/long_pass.py [--quick]``.

Same weights, same row, 15 % targets. The plain model computes all logits, ours those of the targets. Both in evaluation
mode. Agreement is counted at every target: in how many places the most likely token differs.
"""

import torch
from baseline_model import PlainGAU
from harness import MatrixProduct, alternately, main, ratios, table
from torch.utils.flop_counter import FlopCounterMode

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM

VOCABULARY = 12_000


def report(quick: bool) -> list[str]:
    """A long pass in float32 and bfloat16."""
    layers, length, runs = (2, 1_024, 3) if quick else (6, 4_096, 7)
    torch.manual_seed(0)
    plain = PlainGAU(VOCABULARY, layers=layers).eval()
    ours = GAUAlphaForMaskedLM(GAUAlphaConfig(VOCABULARY, num_hidden_layers=layers)).eval()
    ours.load_state_dict(plain.state_dict())
    ids = torch.randint(2, VOCABULARY, (1, length))
    targets = torch.randperm(length)[: length * 15 // 100].sort().values[None]  # (1, T)
    ids[0, targets[0]] = 1
    rows, predictions = [], {}
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        matrix = MatrixProduct(dtype)

        def run_ours(dtype=dtype):
            with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                return ours(ids, target_positions=targets)[0]  # (T, V)

        def run_plain(dtype=dtype):
            with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                return plain(ids)[0]  # (L, V)

        with FlopCounterMode(display=False) as counter:
            predictions[f"ours, {name}"] = run_ours().argmax(-1)
        predictions[f"plain, {name}"] = run_plain()[targets[0]].argmax(-1)
        works = {"matrix": matrix, "ours": run_ours, "plain": run_plain}
        times = alternately(works, 3 if dtype is torch.bfloat16 else runs)
        floor = counter.get_total_flops() / matrix.rate(times["matrix"])
        share = f"{floor / times['ours'].median:.2f}"
        rows.append([f"ours, {name}", str(times["ours"]), ratios(times["plain"], times["ours"]), share])
        rows.append([f"plain, {name}", str(times["plain"]), "", ""])
    exact = predictions["plain, float32"]
    disagreements = [[name, f"{(other != exact).sum().item()} of {len(exact)}"] for name, other in predictions.items()]
    heads = ["pass", "time", "plain over ours", "ours' share of the matrix rate"]
    return [
        f"## One pass of {length:,} tokens, {layers} × 768", "", *table(heads, rows),
        "Most likely tokens that differ from the plain model's in float32 (random weights, whose leads are small):", "",
        *table(["", "differing targets"], disagreements),
    ]  # fmt: skip


if __name__ == "__main__":
    main(report)
