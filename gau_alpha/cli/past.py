"""What the weights of a run have been trained on so far."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from gau_alpha.checkpoints.identity import SEEN_KEY, SPLITS_KEY, STARTED_FROM_KEY
from gau_alpha.cli.splits import all_splits, started_from
from gau_alpha.cli.stored_data import run_of

COUNTED = ("tokens", "documents")
"""What is counted of the text that was trained on: tokens without padding, and documents, or pieces of them, in rows.
Each counts as often as it was read, on all processes."""


class Past:
    """Which weights a run began with, by which rules their documents were held out, and how much it has read."""

    def __init__(self) -> None:
        self._splits: list[dict[str, Any] | None] = []
        self._started_from: Any = None
        self._before = dict.fromkeys(COUNTED, 0)
        self._counted: torch.Tensor | None = None  # by this process, since it started

    def begin(self, path: str | None) -> None:
        """Start from other weights.

        Args:
            path: A checkpoint or folder; None or a path where nothing is: from new ones.

        Raises:
            ValueError: If it can't be read.
        """
        if path and Path(path).exists():
            self._started_from = started_from(Path(path))
            self._splits = self._started_from["splits"]

    def go_on(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over what a run was that is resumed.

        Args:
            checkpoint: What it saved.

        Raises:
            ValueError: If its record is none.
        """
        run = run_of(checkpoint, "the checkpoint")
        self._splits = all_splits(checkpoint, "the checkpoint")
        self._started_from = run.get(STARTED_FROM_KEY)
        seen = run.get(SEEN_KEY)
        if isinstance(seen, Mapping):
            self._before = {name: seen[name] if type(seen.get(name)) is int else 0 for name in COUNTED}

    def count(self, batch: Any) -> None:
        """Count a batch, on its device: nobody waits for it.

        Args:
            batch: With ``input_ids`` (B, L), ``attention_mask`` (B, L) unless all tokens are real, and ``segment_ids``
                (B, L) where rows hold several documents. Anything else, of a data module of one's own, is not counted.
        """
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            return
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        documents = batch.get("segment_ids", mask)  # numbered from 1 in each row
        counted = torch.stack([mask.sum(), documents.amax(-1).sum()])  # (2,)
        self._counted = counted if self._counted is None else self._counted + counted

    def record(self, trainer: Trainer) -> dict[str, Any]:
        """Describe it as plain data; a collective.

        Args:
            trainer: The run's.
        """
        seen = self._before
        if self._counted is not None:
            counts = trainer.strategy.reduce(self._counted.clone(), reduce_op="sum").tolist()
            seen = {name: seen[name] + count for name, count in zip(COUNTED, counts, strict=True)}
        return {STARTED_FROM_KEY: self._started_from, SPLITS_KEY: self._splits, SEEN_KEY: seen}
