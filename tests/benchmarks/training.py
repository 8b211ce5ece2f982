"""A training step beside the plain model's and a BERT's: ``python tests/benchmarks/training.py [--quick]``.

6 × 768, vocabulary 12,000, 2,048 tokens a step, 15 % targets. The floor is the time that the products of
our step need at the rate of a 2048³ product measured in the same turns.
"""

import torch
from harness import MatrixProduct, alternately, main, ratios, table
from opponent import PlainBERT, PlainGAU, plain_step
from torch.utils.flop_counter import FlopCounterMode

from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.optimization import parameter_groups

VOCABULARY, TOKENS, RATE = 12_000, 2_048, 0.15


def batch_of(length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(2, VOCABULARY, (TOKENS // length, length), generator=generator)
    hidden = torch.rand(ids.shape, generator=generator) < RATE
    return {
        "input_ids": ids.masked_fill(hidden, 1),
        "attention_mask": torch.ones_like(ids),
        "labels": torch.where(hidden, ids, -100),
    }


class OurStep:
    """The module's training step and optimizer, without Lightning's loop (``overhead.py`` measures that)."""

    def __init__(self, layers: int, dtype: torch.dtype, dropout: float = 0.1) -> None:
        self.dtype = dtype
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.module = GAUAlphaModule(GAUAlphaConfig(VOCABULARY, num_hidden_layers=layers, **rates), 64)
        groups = parameter_groups(self.module.model, 0.01)
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), fused=True)

    def __call__(self, batch: dict[str, torch.Tensor]) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not torch.float32):
            nll = self.module.training_step(batch, 0)
        nll.backward()
        count = self.module._step_targets
        for parameter in self.module.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(count)
        self.module._step_targets = None
        self.optimizer.step()


def count_flops(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def compare(length: int, dtype: torch.dtype, layers: int, runs: int, dropout: float = 0.1) -> list[list[str]]:
    batch = batch_of(length)
    ours = OurStep(layers, dtype, dropout)
    plain = PlainGAU(VOCABULARY, layers=layers, dropout=dropout)
    bert = PlainBERT(VOCABULARY, layers=layers // 2, dropout=dropout)
    of_plain, of_bert = (torch.optim.AdamW(model.parameters(), lr=1e-4) for model in (plain, bert))
    matrix = MatrixProduct(dtype)
    works = {
        "matrix": matrix,
        "ours": lambda: ours(batch),
        "plain GAU-α": lambda: plain_step(plain, of_plain, batch, dtype),
        "BERT, equal parameters": lambda: plain_step(bert, of_bert, batch, dtype),
    }
    flops = {name: count_flops(work) for name, work in works.items()}
    times = alternately(works, runs)
    rate = matrix.rate(times.pop("matrix"))
    name = "float32" if dtype is torch.float32 else "bf16-mixed"
    name += "" if dropout else ", no dropout"
    return [
        [f"{way}, {length} tokens, {name}", str(timing), f"{TOKENS / timing.median:,.0f}",
         ratios(timing, times["ours"]), f"{flops[way] / 1e9:.0f}", f"{flops[way] / rate / timing.median:.2f}"]
        for way, timing in times.items()
    ]  # fmt: skip


def report(quick: bool) -> list[str]:
    """Training steps at 64 and 512 tokens, in float32 with and without dropout, and in bf16-mixed."""
    layers, runs = (2, 3) if quick else (6, 7)
    cases = [(torch.float32, 0.1, runs), (torch.float32, 0.0, 3), (torch.bfloat16, 0.1, 3)]
    rows = [
        row
        for dtype, dropout, times in cases
        for length in (64, 512)
        for row in compare(length, dtype, layers, times, dropout)
    ]
    heads = ["step", "time", "tokens/s", "× ours' time", "GFLOP", "share of the matrix rate"]
    return [f"## Training step, {layers} × 768, vocabulary {VOCABULARY:,}", "", *table(heads, rows)]


if __name__ == "__main__":
    main(report)
