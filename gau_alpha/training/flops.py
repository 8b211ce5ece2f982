"""Floating-point operations: how many a model needs for a batch, and how many a device does in a second.

B batch, L length, T queries that the last layer computes, N targets, K keys that a query sees, D key size, E value
width, H hidden size, V vocabulary.
"""

import math
import time
import warnings
from collections.abc import Mapping

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.model import GAUAlphaModel
from gau_alpha.visibility import Visibility

REACHED = (0.4, 1.0)
"""Between which shares of a known peak a large product lies.

Lightning's table has some cards with sparsity, which doubles the figure, and some without their tensor cores.
"""

_SIZES = {"cpu": 1024}
_LARGE = 4096  # rows of the matrices of other devices
_SECONDS = 0.05  # that a product is repeated for, at most, to be timed once


class ModelFlops:
    """Counts the operations of a model's matrix products; elementwise work is not counted, as is usual.

    A layer's projections: 2·L·H·(2E + D) + 2·T·E·H. Its attention: 2·T·K·(D + E), once for each pair of a query and a
    key that the method's visibility shows (all, where it can't count them), however a kernel computes it. The head:
    2·N·H·V. All layers but the last one compute all queries, T = L. Padding, and pairs in different documents of a
    packed row, are computed and hidden, so they count. A fine-tuned head's few operations do not.

    Args:
        model: The model.
    """

    def __init__(self, model: GAUAlphaModel) -> None:
        self._model = model
        self._keys: dict[tuple[Visibility, int], float] = {}

    def forward(self, batch: Mapping[str, Tensor]) -> int:
        """Count those of a forward pass; shapes suffice.

        Args:
            batch: ``input_ids`` (…, L), and what ``training.batch.with_targets`` has added to it: ``target_positions``
                (B, T) and ``targets`` (N,). Without them every query is computed, and there is no head.
        """
        *rows, length = batch["input_ids"].shape  # …, L
        config, num_targets = self._model.config, len(batch.get("targets", ()))  # N
        queries = batch["target_positions"].shape[1] if "target_positions" in batch else length  # T
        return math.prod(rows) * self.of_row(length, queries) + 2 * num_targets * config.hidden_size * config.vocab_size

    def of_row(self, length: int, queries: int) -> int:
        """Count those of the layers for one row.

        Args:
            length: L.
            queries: T.
        """
        config = self._model.config
        hidden, width, key = config.hidden_size, config.intermediate_size, config.attention_key_size
        blocks = self._model.gau_alpha.encoder.blocks()
        count = 0.0
        for block in blocks:
            computed = queries if block is blocks[-1] else length
            keys = self._visible(block.gau.method.visibility, length)  # K
            count += 2 * length * hidden * (2 * width + key) + 2 * computed * width * hidden
            count += 2 * computed * keys * (key + width)
        return round(count)

    def training(self, batch: Mapping[str, Tensor]) -> int:
        """Count those of a training step: the backward pass has two products for each one of the forward pass.

        What is computed again to save memory does not count.

        Args:
            batch: See ``forward``.
        """
        return 3 * self.forward(batch)

    def _visible(self, visibility: Visibility, length: int) -> float:
        """Average the keys that a query of a full row sees; worked out once for each length."""
        if type(visibility).num_visible_keys is Visibility.num_visible_keys:
            return length  # it would look at every pair
        if (visibility, length) not in self._keys:
            device = self._model.gau_alpha.embeddings.word_embeddings.weight.device
            with torch.no_grad():
                counts = visibility.num_visible_keys(SequenceLayout.of(length, device))  # (1, L)
            self._keys[visibility, length] = float(counts.float().mean())
        return self._keys[visibility, length]


def computing_dtype(precision: str) -> torch.dtype:
    """Say in which dtype products run under a trainer's precision.

    Args:
        precision: As the trainer names it, such as ``bf16-mixed``.
    """
    dtypes = {"32": torch.float32, "64": torch.float64, "16": torch.float16}
    return next((dtype for start, dtype in dtypes.items() if precision.startswith(start)), torch.bfloat16)


def known_peak(device: torch.device, dtype: torch.dtype, measured: float) -> float | None:
    """Look up what a device can do at most, by its data sheet.

    Args:
        device: The device.
        dtype: What is multiplied.
        measured: What it does, as ``measured_rate`` finds; a known peak that this speaks against is not taken.

    Returns:
        FLOP/s; None where no plausible figure is known, as for every CPU.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a card is not in the table is said by the caller
        peak = get_available_flops(device, dtype)
    return peak if peak and REACHED[0] <= measured / peak <= REACHED[1] else None


def measured_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure how fast a device multiplies large matrices; draws from no generator but its own.

    Args:
        device: The device.
        dtype: What is multiplied.

    Returns:
        FLOP/s, the best of three.
    """
    size = _SIZES.get(device.type, _LARGE)
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    with torch.inference_mode():
        torch.mm(left, right)
        wait_for(device)
        seconds = _timed(left, right, 1)
        repeats = max(1, min(20, int(_SECONDS / seconds)))
        best = min(_timed(left, right, repeats) for _ in range(3)) / repeats
    return 2 * size**3 / best


def wait_for(device: torch.device) -> None:
    """Let the host wait until a device has done all that it was told to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _timed(left: Tensor, right: Tensor, repeats: int) -> float:
    begun = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right)
    wait_for(left.device)
    return time.perf_counter() - begun
