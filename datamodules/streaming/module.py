"""The data module for corpora that are too large to tokenise first."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader

from datamodules.arguments import LARGEST_SEED, LONGEST_ROW, MOST_WORKERS, require_at_least, require_kind, shown
from datamodules.cache import WholeDocuments
from datamodules.dataset import MaskedRows
from datamodules.masking import Masking, TokenMasking
from datamodules.rows import Blocks, Packed, RowMaker
from datamodules.sampling import ShuffledSampler, loader_options
from datamodules.sources import TextSource
from datamodules.split import SPLIT_SEED, VALIDATION_FRACTION, Split, text_hash
from datamodules.streaming.lanes import DocumentsInMemory, Lanes, Stream
from datamodules.streaming.loader import StreamLoader
from datamodules.tokenizers import Tokenizer
from gau_alpha.vocabulary import Vocabulary

DEFAULT_MASKING = TokenMasking()
"""15 % of the tokens, with BERT's 80/10/10."""

DEFAULT_ROWS = Blocks()
"""Each document by itself."""


class StreamingTextDataModule(LightningDataModule):
    """Text for masked language modelling, tokenised while it is read: nothing is cached, memory is bounded.

    Documents are held out by their text, as in ``TextDataModule``; the first of those held out are those evaluated. The
    others are dealt to lanes one by one, and each lane is shuffled
    within windows, so order is as good as random only if neighbouring documents of the corpus are not alike. An epoch
    is as long as the stream; runs are measured in steps (``trainer.max_steps``, and ``val_check_interval`` with
    ``check_val_every_n_epoch: null``).

    Every lane passes over the whole text and tokenises its share of it: passing over is much cheaper than tokenising,
    but with many ranks a corpus in many files and ``TextDataModule`` serves better.

    Args:
        source: Where the text comes from.
        tokenizer: How text becomes token ids.
        train_length: Tokens per training row. Model and methods take it from here.
        batch_size: Rows per batch and rank; the last batch of a window has fewer.
        masking: Which tokens are hidden.
        rows: How documents become rows: ``Blocks`` or ``Packed``.
        validation_documents: Most documents to evaluate: the first that are held out.
        window: Documents whose rows are shuffled together.
        lanes: Lanes per rank. Part of what decides the order, unlike the number of workers; no work is done twice
            where ``num_workers`` divides it.
        seed: Seed of order and masks.
        num_workers: Worker processes. Changes no batch; a run may be resumed with another number.
        worker_timeout: Seconds to wait for a worker's batch before the run ends with a message.
        validation_fraction: Share of the documents held out, in (0, 1), be they evaluated or not. With a small one more
            of the stream is read at the start until ``validation_documents`` are found.
        split_seed: Another seed holds out other documents. Leave it as it is, so that all runs hold out the same.

    Raises:
        ValueError: If a number is out of range, or such rows can't be streamed.
    """

    def __init__(
        self,
        source: TextSource,
        tokenizer: Tokenizer,
        train_length: int,
        batch_size: int = 64,
        masking: Masking = DEFAULT_MASKING,
        rows: RowMaker = DEFAULT_ROWS,
        validation_documents: int = 100,
        window: int = 1000,
        lanes: int = 4,
        seed: int = 0,
        num_workers: int = 0,
        worker_timeout: int = 3600,
        validation_fraction: float = VALIDATION_FRACTION,
        split_seed: int = SPLIT_SEED,
    ) -> None:
        super().__init__()
        require_at_least(1, LONGEST_ROW, train_length=train_length)
        require_at_least(1, MOST_WORKERS, lanes=lanes)
        require_at_least(1, batch_size=batch_size, window=window, validation_documents=validation_documents)
        require_at_least(0, LARGEST_SEED, seed=seed)
        require_at_least(0, MOST_WORKERS, num_workers=num_workers)
        require_at_least(1, worker_timeout=worker_timeout)
        require_kind(TextSource, source=source)
        require_kind(Tokenizer, tokenizer=tokenizer)
        require_kind(Masking, masking=masking)
        if not isinstance(rows, Blocks | Packed):
            raise ValueError(
                f"rows={shown(rows)} can't be streamed: ranks would meet different lengths at a step. Use Blocks or "
                "Packed, or TextDataModule."
            )
        self.source = source
        self.tokenizer = tokenizer
        self.train_length = train_length
        self.batch_size = batch_size
        self.masking = masking
        self.rows = rows
        self.validation_documents = validation_documents
        self.window = window
        self.lanes = lanes
        self.seed = seed
        self.num_workers = num_workers
        self.worker_timeout = worker_timeout
        Split(split_seed, validation_fraction)  # which refuses what is out of range
        self.validation_fraction = validation_fraction
        self.split_seed = split_seed
        self._also: tuple[Split, ...] = ()
        self._validation: tuple[Masking, DocumentsInMemory] | None = None

    @property
    def split(self) -> Split:
        """The rule by which documents are held out."""
        return Split(self.split_seed, self.validation_fraction)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids; there as soon as the data module is."""
        return self.tokenizer.vocabulary

    def setup(self, stage: str | None = None) -> None:
        """Read the validation documents.

        Raises:
            ValueError: If no document of the stream is held out, or none is left to train on.
        """
        if self._validation is not None:
            return
        texts = self._held_out()
        documents = self._stream(self.masking, 1).encode(texts)
        sample = np.concatenate([documents.document(number) for number in range(len(documents))])
        self._validation = self.masking.with_tokenizer(self.tokenizer, sample), documents

    def train_dataloader(self) -> StreamLoader:
        """Load training rows, in another order and with other masks every epoch.

        Under ``Trainer(overfit_batches=...)`` order and masks stay as they are: else there is nothing to overfit to.
        """
        masking, _ = self._open_validation()
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        lanes = Lanes(self._stream(masking, self.lanes * world))
        trainer: Any = self.trainer  # Any: Lightning does not declare `overfit_batches`
        return StreamLoader(
            lanes,
            self.lanes,
            self._batches_in_hand,
            self.num_workers,
            torch.cuda.is_available(),
            is_fixed=trainer is not None and trainer.overfit_batches > 0,
            patience=self.worker_timeout,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Load validation rows: shuffled, in the same order and with the same masks every time and for every seed."""
        rows = self._validation_rows()
        sampler = ShuffledSampler(rows.plan.groups, self.batch_size, self.split_seed)
        return DataLoader(rows, sampler=sampler, **loader_options(self.num_workers, torch.cuda.is_available()))

    def evaluation_documents(self) -> WholeDocuments:
        """Give the validation documents whole, in the order of their places in the split."""
        _, documents = self._open_validation()
        return WholeDocuments(documents, np.flatnonzero(documents.lengths))

    def for_evaluation(self, tokenizer: Tokenizer | None = None, rules: Sequence[Split] = ()) -> Self:
        """Give the same text to evaluate other models on; see ``TextDataModule.for_evaluation``.

        Args:
            tokenizer: Theirs; None: the same.
            rules: Further rules by which documents were held out.
        """
        other = copy.copy(self)
        other._also, other._validation = (*self._also, *rules), None
        if tokenizer is not None:
            other.tokenizer, other.masking = tokenizer, DEFAULT_MASKING
        return other

    def split_rule(self) -> dict[str, Any]:
        """Say by which rule documents are held out, as plain data; there as soon as the data module is."""
        return self.split.describe()

    def identity(self) -> dict[str, Any]:
        """Say what data this is, as plain data.

        Returns:
            ``split``, the rule; ``corpus``, None: who streams a corpus does not read it to hash it.
        """
        return {"split": self.split_rule(), "corpus": None}

    def _held_out(self) -> list[str]:
        """Read the first texts that are held out, each once, and put them in the order of their places."""
        found: dict[str, None] = {}
        num_read = num_trained_on = 0
        for text in self.source.every(0, 1):
            num_read += 1
            if text.isspace() or not text:
                continue
            if not self.split.is_below([text])[0]:
                num_trained_on += 1
            elif len(found) < self.validation_documents and all(rule.is_below([text])[0] for rule in self._also):
                found[text] = None
            if num_trained_on and len(found) == self.validation_documents:
                break
        if not found or not num_trained_on:
            lacking = "held out" if not found else "left to train on"
            raise ValueError(
                f"Of the {num_read} documents of the stream none that holds text is {lacking} at validation_fraction="
                f"{self.validation_fraction}. Change it, use a larger corpus, or TextDataModule."
            )
        hashes = np.array([text_hash(text) for text in found], dtype=np.uint64)
        texts = list(found)
        rank_zero_info(f"{len(texts)} documents are held out by their text, among the first {num_read}, and evaluated.")
        return [texts[number] for number in np.argsort(self.split.places(hashes))]

    def _open_validation(self) -> tuple[Masking, DocumentsInMemory]:
        self.setup()
        assert self._validation is not None
        return self._validation

    def _validation_rows(self) -> MaskedRows:
        masking, documents = self._open_validation()
        return replace(self._stream(masking, 1), seed=self.split_seed).masked(documents)

    def _stream(self, masking: Masking, num_lanes: int) -> Stream:
        return Stream(
            source=self.source,
            tokenizer=self.tokenizer,
            rows=self.rows,
            masking=masking,
            train_length=self.train_length,
            batch_size=self.batch_size,
            seed=self.seed,
            split=self.split,
            window=self.window,
            num_lanes=num_lanes,
        )

    def _batches_in_hand(self) -> int:
        if self.trainer is None:
            return 0
        # Any: Lightning declares types without `processed` and `batches`
        loop: Any = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress.current
        # Without a length to go by, Lightning fetches a batch ahead to know which is the last.
        return len(loop._data_fetcher.batches) + progress.ready - progress.processed
