"""A training step beside the plain model's and a BERT's: ``python tests/benchmarks/training.py [--quick]``.

6 × 768, vocabulary 12,000, 8,192 or 2,048 tokens a step, 15 % targets. The floor is the time that the products of our
step need at the rate of a 2048³ product measured in the same turns.
"""

import numpy as np
import torch
from baseline_model import PlainBERT, PlainGAU, plain_step
from harness import MatrixProduct, Timing, alternately, main, ratios, table
from torch.utils.flop_counter import FlopCounterMode

from datamodules import TokenMasking
from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.training.optimizers import parameter_groups
from gau_alpha.vocabulary import Vocabulary

VOCABULARY, TOKENS = 12_000, 8_192


def batch_of(length: int, tokens: int = TOKENS) -> dict[str, torch.Tensor]:
    """Rows of random tokens, hidden as the data module hides them."""
    rows = tokens // length
    ids = np.random.default_rng(length).integers(2, VOCABULARY, size=(rows, length))
    mask = np.ones_like(ids)
    masked, labels = TokenMasking().apply(ids, mask, np.arange(rows), 0, 0, Vocabulary(VOCABULARY, 1, 0))
    arrays = {"input_ids": masked, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


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


def compare(
    length: int, dtype: torch.dtype, layers: int, tokens: int, runs: int, dropout: float = 0.1
) -> list[list[str]]:
    batch = batch_of(length, tokens)
    ours = OurStep(layers, dtype, dropout)
    plain = PlainGAU(VOCABULARY, layers=layers, dropout=dropout)
    of_plain = torch.optim.AdamW(plain.parameters(), lr=1e-4)
    matrix = MatrixProduct(dtype)
    works = {
        "matrix": matrix,
        "ours": lambda: ours(batch),
        "plain GAU-α": lambda: plain_step(plain, of_plain, batch, dtype),
    }
    flops = {name: count_flops(work) for name, work in works.items()}
    times = alternately(works, runs, 3)  # three steps, until what memory a step needs is there
    rate = matrix.rate(times.pop("matrix"))
    name = "float32" if dtype is torch.float32 else "bf16-mixed"
    name += "" if dropout else ", no dropout"
    name = f"{tokens // length} × {length} tokens, {name}"
    return [_row(f"{way}, {name}", timing, times["ours"], tokens, flops[way], rate) for way, timing in times.items()]


def compare_bert(length: int, layers: int, tokens: int, runs: int) -> list[list[str]]:
    """A BERT of as many parameters."""
    batch = batch_of(length, tokens)
    ours = OurStep(layers, torch.float32)
    bert = PlainBERT(VOCABULARY, layers=layers // 2)
    of_bert = torch.optim.AdamW(bert.parameters(), lr=1e-4)
    matrix = MatrixProduct()
    works = {
        "matrix": matrix,
        "ours": lambda: ours(batch),
        "BERT": lambda: plain_step(bert, of_bert, batch, torch.float32),
    }
    flops = {name: count_flops(work) for name, work in works.items()}
    times = alternately(works, runs, 3)
    rate = matrix.rate(times["matrix"])
    name = f"BERT of as many parameters, {tokens // length} × {length} tokens, float32"
    return [_row(name, times["BERT"], times["ours"], tokens, flops["BERT"], rate)]


def _row(name: str, timing: Timing, ours: Timing, tokens: int, flops: int, rate: float) -> list[str]:
    speed, share = f"{tokens / timing.median:,.0f}", f"{flops / rate / timing.median:.2f}"
    return [name, str(timing), speed, ratios(timing, ours), f"{flops / 1e9:.0f}", share]


def report(quick: bool) -> list[str]:
    """Training steps at 64 and 512 tokens, in float32 with and without dropout, and in bf16-mixed."""
    layers, tokens, runs = (2, 2_048, 3) if quick else (6, TOKENS, 7)
    cases = [
        (torch.float32, 0.1, tokens, runs),
        (torch.float32, 0.1, 2_048, runs),
        (torch.float32, 0.0, 2_048, 3),
        (torch.bfloat16, 0.1, 2_048, 3),
    ]
    rows = [
        row
        for dtype, dropout, at_once, times in cases
        for length in (64, 512)
        for row in compare(length, dtype, layers, at_once, times, dropout)
    ]
    for length in (64, 512):
        rows += compare_bert(length, layers, 2_048, 3)
    heads = ["step", "time", "tokens/s", "× ours' time", "GFLOP", "share of the matrix rate"]
    return [
        f"## Training step, {layers} × 768, vocabulary {VOCABULARY:,}", "",
        *table(heads, rows),
    ]  # fmt: skip


if __name__ == "__main__":
    main(report)
