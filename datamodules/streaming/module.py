"""The data module for corpora that are too large to tokenise first."""

from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.arguments import LARGEST_SEED, LONGEST_ROW, MOST_WORKERS, require_at_least, require_kind, shown
from datamodules.dataset import MaskedRows
from datamodules.masking import Masking, TokenMasking
from datamodules.rows import Blocks, Packed, RowMaker
from datamodules.sampling import FixedSampler, loader_options
from datamodules.sources import TextSource
from datamodules.streaming.lanes import DocumentsInMemory, Lanes, Stream
from datamodules.streaming.loader import StreamLoader
from datamodules.text import WholeDocuments
from datamodules.tokenizers import Tokenizer
from gau_alpha.vocabulary import Vocabulary

DEFAULT_MASKING = TokenMasking()
"""15 % of the tokens, with BERT's 80/10/10."""

DEFAULT_ROWS = Blocks()
"""Each document by itself."""


class StreamingTextDataModule(LightningDataModule):
    """Text for masked language modelling, tokenised while it is read: nothing is cached, memory is bounded.

    The first documents are kept for validation. The others are dealt to lanes one by one, and each lane is shuffled
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
        validation_documents: Number of documents, from the beginning of the stream, kept for validation.
        window: Documents whose rows are shuffled together.
        lanes: Lanes per rank. Part of what decides the order, unlike the number of workers; no work is done twice
            where ``num_workers`` divides it.
        seed: Seed of order and masks.
        num_workers: Worker processes. Changes no batch; a run may be resumed with another number.
        worker_timeout: Seconds to wait for a worker's batch before the run ends with a message.

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
        self._validation: tuple[Masking, DocumentsInMemory] | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids; there as soon as the data module is."""
        return self.tokenizer.vocabulary

    def setup(self, stage: str | None = None) -> None:
        """Read the validation documents.

        Raises:
            ValueError: If the stream ends before anything is left to train on, or has no text.
        """
        if self._validation is not None:
            return
        texts = list(islice(self.source.every(0, 1), self.validation_documents + 1))
        if len(texts) <= self.validation_documents:
            raise ValueError(
                f"validation_documents={self.validation_documents}, but the whole stream has {len(texts)} documents: "
                "none is left to train on. Lower it or use a larger corpus."
            )
        documents = self._stream(self.masking, 1).encode(texts[:-1])
        if not documents.lengths.any():
            raise ValueError(
                f"The first {len(documents)} documents, which are kept for validation, hold no text. Raise "
                "validation_documents or leave out blank documents."
            )
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
        """Load validation rows: the same order and the same masks every time."""
        rows = self._validation_rows()
        sampler = FixedSampler(rows.plan.groups, self.batch_size, self.seed)
        return DataLoader(rows, sampler=sampler, **loader_options(self.num_workers, torch.cuda.is_available()))

    def evaluation_documents(self) -> WholeDocuments:
        """Give the validation documents that hold text, whole, in the order of the stream."""
        _, documents = self._open_validation()
        return WholeDocuments(documents, np.flatnonzero(documents.lengths))

    def _open_validation(self) -> tuple[Masking, DocumentsInMemory]:
        self.setup()
        assert self._validation is not None
        return self._validation

    def _validation_rows(self) -> MaskedRows:
        masking, documents = self._open_validation()
        return self._stream(masking, 1).masked(documents)

    def _stream(self, masking: Masking, num_lanes: int) -> Stream:
        return Stream(
            source=self.source,
            tokenizer=self.tokenizer,
            rows=self.rows,
            masking=masking,
            train_length=self.train_length,
            batch_size=self.batch_size,
            seed=self.seed,
            first_document=self.validation_documents,
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
