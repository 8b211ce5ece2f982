"""What single-mask costs, beside a plain loop over the published protocol.

    python tests/benchmarks/single_mask.py [--length 4096] [--positions 64] [--repeats 3]

Prints a Markdown table. The plain loop hides one position per row, batches 32 rows and computes the logits of every
position (arXiv 2501.08570's script); both run the same positions of the same document through the same model. The
published batch of 32 rows × 4,096 tokens × vocabulary needs memory: the loop here keeps to it.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine
from gau_alpha.vocabulary import Vocabulary

PUBLISHED_BATCH = 32


def plain_loop(model: GAUAlphaForMaskedLM, tokens: np.ndarray, positions: list[int], mask_id: int) -> float:
    """Mean loss, with full logits for every position, 32 rows at a time."""
    total = 0.0
    for start in range(0, len(positions), PUBLISHED_BATCH):
        some = torch.tensor(positions[start : start + PUBLISHED_BATCH])
        input_ids = torch.from_numpy(tokens).repeat(len(some), 1)  # (B, L)
        rows = torch.arange(len(some))
        labels = input_ids[rows, some]
        input_ids[rows, some] = mask_id
        with torch.no_grad():
            logits = model(input_ids)  # (B, L, V)
        total += torch.nn.functional.cross_entropy(logits[rows, some], labels, reduction="sum").item()
    return total / len(positions)


def forward_pass(model: GAUAlphaForMaskedLM, tokens: np.ndarray) -> None:
    """One pass over the document, hidden states and no logits but one."""
    with torch.no_grad():
        model(torch.from_numpy(tokens)[None], target_positions=torch.zeros(1, 1, dtype=torch.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--positions", type=int, default=64)
    parser.add_argument("--vocab_size", type=int, default=12_000)
    parser.add_argument("--hidden_size", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    config = GAUAlphaConfig(args.vocab_size, args.hidden_size, 2 * args.hidden_size, 64, args.layers)
    model = GAUAlphaForMaskedLM(config).eval()
    tokens = np.random.default_rng(0).integers(2, args.vocab_size, size=args.length)
    vocabulary = Vocabulary(args.vocab_size, 1, 0)
    engine = ExtrapolationEngine(
        [tokens],
        vocabulary,
        args.length,
        EvaluationOptions([1], "single-mask", args.positions, entropy=False, distances=False, num_resamples=1),
    )
    positions = [int(one.positions[0]) for one in engine.spans.examples(args.length)]
    seconds: dict[str, list[float]] = {"plain loop": [], "engine": [], f"{args.positions} forward passes": []}
    for _ in range(args.repeats):  # in turn, so that a change of the machine's speed meets all alike
        start = time.perf_counter()
        (row,) = engine.evaluate(model, {"own": model.method})
        seconds["engine"].append(time.perf_counter() - start)
        start = time.perf_counter()
        plain_loop(model, tokens, positions, vocabulary.mask_id)
        seconds["plain loop"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(args.positions):
            forward_pass(model, tokens)
        seconds[f"{args.positions} forward passes"].append(time.perf_counter() - start)
        assert row.num_targets == args.positions
    base = statistics.median(seconds["plain loop"])
    print(f"{args.positions} positions of {args.length} tokens, {config.num_hidden_layers} × {config.hidden_size}, "
          f"V = {config.vocab_size}, {torch.get_num_threads()} threads, median of {args.repeats}\n")  # fmt: skip
    print("| way | seconds | share of the plain loop |\n|---|---:|---:|")
    for name, measured in seconds.items():
        print(f"| {name} | {statistics.median(measured):.2f} | {statistics.median(measured) / base:.2f} |")


if __name__ == "__main__":
    main()
