"""Whether both train alike: ``python tests/benchmarks/loss_curves.py [--quick]``, no timings.

The same rows of text, the same weights at the start, 300 steps of AdamW at one rate, 6 × 768, vocabulary 12,000, 8 rows
of 64 tokens a step. Without dropout nothing but rounding differs. With dropout the masks differ, and the same model
started with other masks says what that alone does.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from baseline_model import PlainGAU, plain_loss
from harness import main, table
from torch import nn

from datamodules import PythonStandardLibrary, TextDataModule, TokenizerFile
from datamodules.tokenizers.training import train_tokenizer
from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.training.optimizers import parameter_groups

VOCABULARY, LENGTH, ROWS, RATE = 12_000, 64, 8, 3e-4


def batches_of(steps: int) -> list[dict[str, torch.Tensor]]:
    """Rows of the standard library's text, in BPE of 12,000 tokens, hidden as in training."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "tokenizer.json")
        train_tokenizer(PythonStandardLibrary(), "bpe", VOCABULARY).save(path)
        data = TextDataModule(PythonStandardLibrary(), TokenizerFile(path), LENGTH, ROWS, cache_dir=folder)
        data.prepare_data()
        data.setup("fit")
        return [batch for _, batch in zip(range(steps), data.train_dataloader(), strict=False)]


def curve_of(model: nn.Module, loss_of: Callable, batches: list[dict[str, torch.Tensor]], seed: int) -> np.ndarray:
    """(steps,) losses of a training in place; the rate rises over a tenth of the steps and stays."""
    torch.manual_seed(seed)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=RATE, betas=(0.9, 0.98), fused=True)
    curve = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / (0.1 * len(batches)))
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return np.array(curve)


def ours(state: dict, layers: int, dropout: float, batches: list[dict[str, torch.Tensor]], seed: int) -> np.ndarray:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    module = GAUAlphaModule(GAUAlphaConfig(VOCABULARY, num_hidden_layers=layers, **rates), LENGTH)
    module.model.load_state_dict(state)

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        nll, _, count = module.training_loss(batch, 0)
        return nll / count

    return curve_of(module.model, loss_of, batches, seed)


def plain(state: dict, layers: int, dropout: float, batches: list[dict[str, torch.Tensor]], seed: int) -> np.ndarray:
    model = PlainGAU(VOCABULARY, layers=layers, dropout=dropout)
    model.load_state_dict(state)
    return curve_of(model, lambda batch: plain_loss(model, batch), batches, seed)


def report(quick: bool) -> list[str]:
    """How far curves lie apart, at single steps and over 20 of them."""
    layers, steps = (2, 40) if quick else (6, 300)
    batches = batches_of(steps)
    torch.manual_seed(0)
    state = {name: value.clone() for name, value in PlainGAU(VOCABULARY, layers=layers).state_dict().items()}
    own = ours(state, layers, 0.0, batches, 1)
    dropped = ours(state, layers, 0.1, batches, 1)
    pairs = {
        "ours and plain, no dropout": (own, plain(state, layers, 0.0, batches, 1)),
        "ours and plain, dropout 0.1": (dropped, plain(state, layers, 0.1, batches, 1)),
        "ours and ours with other masks, dropout 0.1": (dropped, ours(state, layers, 0.1, batches, 2)),
    }
    rows = []
    for name, (one, other) in pairs.items():
        smooth = [np.convolve(curve, np.full(20, 1 / 20), "valid") for curve in (one, other)]
        rows.append(
            [name, f"{one[:10].mean():.3f}", f"{one[-20:].mean():.3f}", f"{other[-20:].mean():.3f}",
             f"{np.abs(one - other).max():.2g}", f"{np.abs(smooth[0] - smooth[1]).max():.2g}"]
        )  # fmt: skip
    heads = ["curves", "first 10", "last 20 of the one", "and of the other", "farthest, a step", "and over 20 steps"]
    title = f"## Loss over {steps} steps, {layers} × 768, vocabulary {VOCABULARY:,}, {ROWS} rows of {LENGTH}, nats"
    return [title, "", *table(heads, rows)]


if __name__ == "__main__":
    main(report)
