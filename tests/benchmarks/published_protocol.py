"""64 sampled positions beside the published exact run: ``python tests/benchmarks/published_protocol.py [--quick]``.

6 × 768, 10 documents of 4,096 tokens. The published protocol hides every position once, a pass each, and takes logits
of all positions: 40,960 passes of the plain model. Ours is the engine with 64 positions a document. Both are timed on a
part, in turns, and multiplied: passes do not differ.
"""

import numpy as np
import torch
from baseline_model import PlainGAU
from harness import alternately, main, ratios, table

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine
from gau_alpha.vocabulary import Vocabulary

VOCABULARY, DOCUMENTS, SAMPLED = 12_000, 10, 64


def report(quick: bool) -> list[str]:
    """Extrapolated hours of the exact run, and of ours."""
    layers, length, runs = (2, 1_024, 3) if quick else (6, 4_096, 7)
    passes = 1
    plain = PlainGAU(VOCABULARY, layers=layers).eval()
    ours = GAUAlphaForMaskedLM(GAUAlphaConfig(VOCABULARY, num_hidden_layers=layers)).eval()
    ours.load_state_dict(plain.state_dict())
    tokens = np.random.default_rng(0).integers(2, VOCABULARY, size=length)
    engine = ExtrapolationEngine(
        [tokens],
        Vocabulary(VOCABULARY, 1, 0),
        length,
        EvaluationOptions([1], "single-mask", passes, entropy=False, distances=False, num_resamples=1),
    )
    ids = torch.from_numpy(tokens).repeat(passes, 1)  # (B, L)
    ids[torch.arange(passes), torch.arange(passes)] = 1

    def exact() -> None:
        with torch.no_grad():
            plain(ids)

    times = alternately({"ours": lambda: list(engine.evaluate(ours, {"own": ours.method})), "plain": exact}, runs)
    each = {name: timing.median / passes for name, timing in times.items()}
    hours = {"ours": each["ours"] * SAMPLED * DOCUMENTS / 3600, "plain": each["plain"] * length * DOCUMENTS / 3600}
    rows = [
        [f"ours, {SAMPLED} positions a document", str(times["ours"]), f"{hours['ours']:.2f} h"],
        ["published protocol, all positions", str(times["plain"]), f"{hours['plain']:.1f} h"],
        ["ratio", ratios(times["plain"], times["ours"]), f"{hours['plain'] / hours['ours']:.0f} ×"],
    ]
    worst = 1.96 * (0.25 / (SAMPLED * DOCUMENTS)) ** 0.5
    return [
        f"## single-mask, {DOCUMENTS} documents of {length:,} tokens, {layers} × 768", "",
        *table(["", f"{passes} passes", "all, extrapolated"], rows),
        f"{SAMPLED * DOCUMENTS} independent targets leave ± {100 * worst:.1f} points at an accuracy of 50 %.",
        "",
    ]  # fmt: skip


if __name__ == "__main__":
    main(report)
