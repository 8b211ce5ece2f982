"""The data module: a source, a tokenizer, a row length and a masking rule put together."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from datamodules.arguments import (
    LARGEST_SEED,
    LONGEST_ROW,
    MOST_WORKERS,
    is_number,
    require_at_least,
    require_kind,
    require_path,
    shown,
)
from datamodules.cache import Documents, JoinedDocuments, TokenizedDocuments, tokenize
from datamodules.dataset import MaskedRows
from datamodules.full_documents import FullDocuments
from datamodules.masking import Masking, TokenMasking
from datamodules.randomness import Purpose, random_order
from datamodules.rows import Blocks, JoinedPlan, RowMaker
from datamodules.sampling import EpochSampler, FixedSampler, ResumableLoader, loader_options
from datamodules.sources import Mixture, TextSource
from datamodules.tokenizers import Tokenizer
from gau_alpha.vocabulary import Vocabulary

DEFAULT_MASKING = TokenMasking()
"""15 % of the tokens, with BERT's 80/10/10."""

DEFAULT_ROWS = Blocks()
"""Each document by itself."""

_SAMPLE_DOCUMENTS, _SAMPLE_TOKENS = 64, 1024


class TextDataModule(LightningDataModule):
    """Text for masked language modelling: tokenised once, split by document, cut into rows, masked anew every epoch.

    Args:
        source: Where the text comes from.
        tokenizer: How text becomes token ids.
        train_length: Tokens per training row, or of the longest. Model and methods take it from here.
        batch_size: Rows per batch and rank; where lengths vary, the tokens in so many rows of ``train_length``.
        masking: Which tokens are hidden.
        validation_fraction: Share of the documents kept for validation, in (0, 1); at least one document is kept and
            one left to train on.
        seed: Seed of split, order and masks.
        num_workers: Worker processes per loader. Changes no batch; a run may be resumed with another number.
        cache_dir: Folder of the tokenised corpora; by default ``gau_alpha_lightning`` in the user's cache folder
            (``$XDG_CACHE_HOME`` or ``~/.cache``).
        rows: How documents become rows: ``Blocks``, ``Packed`` or ``VariableLength``.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        source: TextSource,
        tokenizer: Tokenizer,
        train_length: int,
        batch_size: int = 64,
        masking: Masking = DEFAULT_MASKING,
        validation_fraction: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
        rows: RowMaker = DEFAULT_ROWS,
    ) -> None:
        super().__init__()
        require_at_least(1, LONGEST_ROW, train_length=train_length)
        require_at_least(1, batch_size=batch_size)
        require_at_least(0, LARGEST_SEED, seed=seed)
        require_at_least(0, MOST_WORKERS, num_workers=num_workers)
        require_kind(TextSource, source=source)
        require_kind(Tokenizer, tokenizer=tokenizer)
        require_kind(Masking, masking=masking)
        require_kind(RowMaker, rows=rows)
        if cache_dir is not None:
            require_path(cache_dir=cache_dir)
        if not is_number(validation_fraction) or not 0 < validation_fraction < 1:
            raise ValueError(
                f"validation_fraction={shown(validation_fraction)} must lie between 0 and 1, both excluded: training "
                "and validation each need documents. 0.1 is usual."
            )
        self.source = source
        self.tokenizer = tokenizer
        self.train_length = train_length
        self.batch_size = batch_size
        self.masking = masking
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.rows = rows
        self._splits: tuple[MaskedRows, MaskedRows] | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids; there as soon as the data module is."""
        return self.tokenizer.vocabulary

    def prepare_data(self) -> None:
        """Tokenise the corpus, once per machine, unless a cache holds it."""
        for source in self._sources():
            tokenize(source, self.tokenizer, self.cache_dir)

    def setup(self, stage: str | None = None) -> None:
        """Map the tokenised corpus and split it.

        Raises:
            ValueError: If the corpus is too small for one row or for two splits.
        """
        if self._splits is None and stage != "predict":  # which reads all documents, and be it a single one
            parts = [tokenize(source, self.tokenizer, self.cache_dir) for source in self._sources()]
            splits = [self._split(part) for part in parts]
            masking = self.masking.with_tokenizer(self.tokenizer, _sample(parts, [training for training, _ in splits]))
            weights = self.source.weights if isinstance(self.source, Mixture) else None
            self._splits = (
                self._rows(parts, [training for training, _ in splits], masking, weights),
                self._rows(parts, [validation for _, validation in splits], masking, None),
            )
            self._report(self._splits[0])

    def train_dataloader(self) -> ResumableLoader:
        """Load training rows, in another order and with other masks every epoch.

        Under ``Trainer(overfit_batches=...)`` order and masks stay as they are: else there is nothing to overfit to.
        """
        rows, _ = self._open_splits()
        trainer: Any = self.trainer  # Any: Lightning does not declare `overfit_batches`
        overfits = trainer is not None and trainer.overfit_batches > 0
        sampler = (FixedSampler if overfits else EpochSampler)(rows.plan.groups, self.batch_size, self.seed)
        return ResumableLoader(rows, sampler, self._batches_in_hand, self.num_workers, torch.cuda.is_available())

    def val_dataloader(self) -> DataLoader[Any]:
        """Load validation rows: the same order and the same masks every time."""
        _, rows = self._open_splits()
        sampler = FixedSampler(rows.plan.groups, self.batch_size, self.seed)
        return DataLoader(rows, sampler=sampler, **loader_options(self.num_workers, torch.cuda.is_available()))

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the validation rows: a corpus is split in two, and ``test`` reads the part that no model trained on."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Load all documents of the source, whole, in the source's order, nothing hidden: to embed them.

        A batch has as many tokens as training's, ``batch_size`` · ``train_length``, padding included; a longer document
        is a batch of its own.
        """
        parts = [tokenize(source, self.tokenizer, self.cache_dir) for source in self._sources()]
        documents: Documents = parts[0] if len(parts) == 1 else JoinedDocuments(parts)
        rows = FullDocuments(documents, self.vocabulary.pad_id, self.batch_size * self.train_length)
        return DataLoader(rows, **loader_options(self.num_workers, torch.cuda.is_available()))

    def evaluation_documents(self) -> "WholeDocuments":
        """Give the validation split's documents whole.

        The order is fixed by the seed and has nothing to do with that of the corpus: the first n are a fair sample.
        """
        _, rows = self._open_splits()
        return WholeDocuments(rows.documents, rows.selected)

    def _open_splits(self) -> tuple[MaskedRows, MaskedRows]:
        self.setup()
        assert self._splits is not None
        return self._splits

    def _sources(self) -> list[TextSource]:
        return self.source.sources if isinstance(self.source, Mixture) else [self.source]

    def _rows(
        self,
        parts: list[TokenizedDocuments],
        selected: list[NDArray[np.int64]],
        masking: Masking,
        weights: list[float] | None,
    ) -> MaskedRows:
        plans = [
            self.rows.plan(part.lengths[some], self.train_length, self.batch_size, self.seed)
            for part, some in zip(parts, selected, strict=True)
        ]
        if len(parts) == 1:
            return MaskedRows(parts[0], selected[0], plans[0], masking, self.vocabulary, self.seed)
        plan = JoinedPlan(plans, [len(some) for some in selected], weights)
        first = np.cumsum([0, *map(len, parts)])
        joined = np.concatenate([some + start for some, start in zip(selected, first[:-1], strict=True)])
        return MaskedRows(JoinedDocuments(parts), joined, plan, masking, self.vocabulary, self.seed)

    def _report(self, rows: MaskedRows) -> None:
        """Say what the rows are: how many, and how full."""
        num_tokens = int(rows.documents.lengths[rows.selected].sum())
        lengths = ", ".join(f"{group.num_rows} of {group.length}" for group in rows.plan.groups)
        rank_zero_info(
            f"{type(self.rows).__name__}: {len(rows)} training rows ({lengths} tokens), "
            f"{rows.plan.efficiency(num_tokens):.1%} of their positions hold tokens."
        )

    def _split(self, documents: TokenizedDocuments) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        num_tokens = int(documents.lengths.sum())
        if num_tokens < self.train_length:
            raise ValueError(
                f"train_length={self.train_length}, but the whole corpus has {num_tokens} tokens: not one row can be "
                "filled. Choose a shorter train_length or a larger corpus."
            )
        not_empty = np.flatnonzero(documents.lengths)
        if len(not_empty) < 2:
            raise ValueError(
                f"The corpus has {len(not_empty)} document that is not empty, but training and validation each need "
                "one of their own. Split the text into several files or lines."
            )
        shuffled = not_empty[random_order(self.seed, Purpose.SPLIT, 0, len(not_empty))]
        num_validation = round(self.validation_fraction * len(shuffled))
        num_validation = min(max(num_validation, 1), len(shuffled) - 1)
        return np.sort(shuffled[num_validation:]), shuffled[:num_validation]

    def _batches_in_hand(self) -> int:
        if self.trainer is None:
            return 0
        # Any: Lightning declares a type without `processed`
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.ready - progress.processed


def _sample(parts: list[TokenizedDocuments], selected: list[NDArray[np.int64]]) -> NDArray[np.int32]:
    """Return (tokens,) the beginnings of some training documents."""
    beginnings = [
        part.document(int(document))[:_SAMPLE_TOKENS]
        for part, some in zip(parts, selected, strict=True)
        for document in some[:_SAMPLE_DOCUMENTS]
    ]
    return np.concatenate(beginnings)


class WholeDocuments(Sequence[NDArray[np.int64]]):
    """Some documents, whole, read from the cache when asked for.

    Args:
        documents: The tokens of all documents.
        selected: (documents used,) which of them.
    """

    def __init__(self, documents: Documents, selected: NDArray[np.int64]) -> None:
        self._documents = documents
        self._selected = selected

    def __len__(self) -> int:
        return len(self._selected)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int64]: ...

    @overload
    def __getitem__(self, index: slice) -> "WholeDocuments": ...

    def __getitem__(self, index: int | slice) -> "NDArray[np.int64] | WholeDocuments":
        if isinstance(index, slice):
            return WholeDocuments(self._documents, self._selected[index])
        # A copy: PyTorch wants int64, and memory that can be written to.
        return self._documents.document(int(self._selected[index])).astype(np.int64)
