"""Windowed beside full attention at 65,536 tokens: ``python tests/benchmarks/windows.py [--quick]``.

The tiny model. A full pass at this length takes minutes: attention is timed in one layer where the first queries see
the whole row and the others one key, and multiplied; projections and all else are left out of full attention's time.
``window_exponent.py`` fits how the cost grows with the length.
"""

import torch
from harness import alternately, main, table

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import Blocked
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.visibility import Window

CONFIG = GAUAlphaConfig(258, 192, 384, 64, 4)


def report(quick: bool) -> list[str]:
    """Time of windowed and of full attention."""
    length, queries, runs = (8_192, 1_024, 3) if quick else (65_536, 1_024, 7)
    model = GAUAlphaForMaskedLM(CONFIG, AttentionMethod(visibility=Window(32))).eval()
    ids, targets = torch.randint(2, 258, (1, length)), torch.arange(0, length, 8)[None]
    plan = AttentionMethod().plan(SequenceLayout.of(length, ids.device), CONFIG.attention_key_size)
    query, key = torch.randn(2, 1, length, CONFIG.attention_key_size).unbind()
    value = torch.randn(1, length, CONFIG.intermediate_size)

    def windowed():
        with torch.no_grad():
            model(ids, target_positions=targets)

    def part_of_full():
        with torch.no_grad():
            Blocked()(query, key, value, plan, torch.arange(queries)[None])

    times = alternately({"windowed": windowed, "part of full": part_of_full}, runs)
    of_layer = times["part of full"].median * length / queries
    full = CONFIG.num_hidden_layers * of_layer
    rows = [
        ["windowed pass, radius 32", str(times["windowed"])],
        [f"full attention of {queries} queries in one layer", str(times["part of full"])],
        [f"full attention of {length:,} queries in {CONFIG.num_hidden_layers} layers, extrapolated", f"{full:.0f} s"],
        ["full attention alone over the whole windowed pass", f"{full / times['windowed'].median:.0f} ×"],
    ]
    return [f"## Windowed attention at {length:,} tokens, 4 × 192", "", *table(["", ""], rows)]


if __name__ == "__main__":
    main(report)
