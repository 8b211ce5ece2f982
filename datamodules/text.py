"""The data module: a source, a tokenizer, a row length and a masking rule put together."""

import copy
from collections.abc import Sequence
from typing import Any, Self

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
    require_at_least,
    require_kind,
    require_path,
)
from datamodules.cache import Documents, JoinedDocuments, TokenizedDocuments, WholeDocuments, tokenize
from datamodules.dataset import MaskedRows
from datamodules.full_documents import FullDocuments, batches_left
from datamodules.masking import Masking, TokenMasking
from datamodules.rows import Blocks, JoinedPlan, RowMaker, RowPlan
from datamodules.sampling import EpochSampler, FixedSampler, ResumableLoader, ShuffledSampler, loader_options
from datamodules.sources import Mixture, TextSource
from datamodules.split import SPLIT_SEED, VALIDATION_FRACTION, Split, corpus_fingerprint
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
        validation_fraction: Share of the documents held out for validation, in (0, 1). Which are, depends on their
            text alone (see ``datamodules.split``), so the share comes out as chance allows, and is told; at least one
            document is held out and one left to train on.
        seed: Seed of order and masks of training. Validation is the same for every seed.
        num_workers: Worker processes per loader. Changes no batch; a run may be resumed with another number.
        cache_dir: Folder of the tokenised corpora; by default ``gau_alpha_lightning`` in the user's cache folder
            (``$XDG_CACHE_HOME`` or ``~/.cache``).
        rows: How documents become rows: ``Blocks``, ``Packed`` or ``VariableLength``.
        split_seed: Another seed holds out other documents. Leave it as it is, so that all runs hold out the same.
        predict_length: Most tokens of a document that ``predict`` reads: longer ones, whose cost grows with the square
            of their length, are cut behind them, and counted. By default none is cut.

    Attributes:
        predicted_rows: (rows,) int64, the documents that need not be predicted again: an interrupted run has.

    Raises:
        ValueError: If a number is out of range.
    """

    predicted_rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __init__(
        self,
        source: TextSource,
        tokenizer: Tokenizer,
        train_length: int,
        batch_size: int = 64,
        masking: Masking = DEFAULT_MASKING,
        validation_fraction: float = VALIDATION_FRACTION,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
        rows: RowMaker = DEFAULT_ROWS,
        split_seed: int = SPLIT_SEED,
        predict_length: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, LONGEST_ROW, train_length=train_length)
        require_at_least(1, batch_size=batch_size)
        if predict_length is not None:
            require_at_least(1, predict_length=predict_length)
        require_at_least(0, LARGEST_SEED, seed=seed)
        require_at_least(0, MOST_WORKERS, num_workers=num_workers)
        require_kind(TextSource, source=source)
        require_kind(Tokenizer, tokenizer=tokenizer)
        require_kind(Masking, masking=masking)
        require_kind(RowMaker, rows=rows)
        if cache_dir is not None:
            require_path(cache_dir=cache_dir)
        Split(split_seed, validation_fraction)  # which refuses what is out of range
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
        self.split_seed = split_seed
        self.predict_length = predict_length
        self._also: tuple[Split, ...] = ()
        self._is_told = False
        self._documents: TokenizedDocuments | JoinedDocuments | None = None
        self._splits: tuple[MaskedRows, MaskedRows] | None = None
        self._planned: tuple[Any, ...] = ()

    @property
    def split(self) -> Split:
        """The rule by which documents are held out."""
        return Split(self.split_seed, self.validation_fraction)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids; there as soon as the data module is."""
        return self.tokenizer.vocabulary

    def prepare_data(self) -> None:
        """Tokenise the corpus, once per machine, unless a cache holds it."""
        self._tokenized()

    def setup(self, stage: str | None = None) -> None:
        """Map the tokenised corpus and split it: once, and again if an attribute that decides it was changed since.

        Raises:
            ValueError: If the corpus is too small for one row or for two splits, or an attribute is out of range.
        """
        # Lightning's tools set attributes, such as batch_size.
        require_at_least(1, LONGEST_ROW, train_length=self.train_length)
        require_at_least(1, batch_size=self.batch_size)
        asked = (
            *(self.source, self.tokenizer, self.masking, self.rows, self.split, self._also),
            *(self.train_length, self.batch_size, self.seed),
        )
        if self._planned == asked or stage == "predict":  # which reads all documents, and be it a single one
            return
        parts = self._tokenized()
        not_empty = [self._not_empty(part) for part in parts]
        places = [self.split.places(part.text_hashes[some]) for part, some in zip(parts, not_empty, strict=True)]
        sides = self.split.held_out(places)
        training = [some[~out] for some, out in zip(not_empty, sides, strict=True)]
        masking = self.masking.with_tokenizer(self.tokenizer, _sample(parts, training))
        evaluated = self._held_out_from_all(parts, not_empty, sides)
        held_out = _in_joined(parts, [some[out] for some, out in zip(not_empty, evaluated, strict=True)])
        place = np.concatenate([some[out] for some, out in zip(places, evaluated, strict=True)])
        # np.unique sorts: each text once, in the order of the places.
        held_out = held_out[np.unique(place, return_index=True)[1]]
        self._documents = _joined(parts)
        self._splits = (
            self._training_rows(self._documents, parts, training, masking),
            self._validation_rows(self._documents, held_out, masking),
        )
        self._planned = asked
        self._report(self._splits[0], sides, places)

    def for_evaluation(self, tokenizer: Tokenizer | None = None, rules: Sequence[Split] = ()) -> Self:
        """Give the same text to evaluate other models on, beside this data module or in its place.

        Args:
            tokenizer: Theirs; None: the same. With another one, masking is the default: it is not evaluated.
            rules: Further rules by which documents were held out: only what all of them hold out is evaluated.
        """
        other = copy.copy(self)
        other._also = (*self._also, *rules)
        if tokenizer is not None:
            other.tokenizer, other.masking = tokenizer, DEFAULT_MASKING
        return other

    def split_rule(self) -> dict[str, Any]:
        """Say by which rule documents are held out, as plain data; there as soon as the data module is."""
        return self.split.describe()

    def identity(self) -> dict[str, Any]:
        """Say what data this is, as plain data.

        Returns:
            ``split``, the rule; ``corpus``, its ``documents`` and a ``sha256`` of their texts, whatever their order.
        """
        self.setup()
        assert self._documents is not None
        hashes = self._documents.text_hashes
        return {
            "split": self.split_rule(),
            "corpus": {"documents": len(hashes), "sha256": corpus_fingerprint(hashes)},
        }

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
        """Load validation rows: the same order and the same masks every time, and whatever the seed of training.

        They are shuffled, over documents, sources and lengths: the first batches are a fair sample.
        """
        _, rows = self._open_splits()
        sampler = ShuffledSampler(rows.plan.groups, self.batch_size, self.split_seed)
        return DataLoader(rows, sampler=sampler, **loader_options(self.num_workers, torch.cuda.is_available()))

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the validation rows: a corpus is split in two, and ``test`` reads the part that no model trained on."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Load all documents of the source, in the source's order, nothing hidden: to embed them.

        A batch has as many tokens as training's, ``batch_size`` · ``train_length``, padding included; a longer document
        is a batch of its own. Batches whose documents are all ``predicted_rows`` are left out.
        """
        documents, longest = _joined(self._tokenized()), self.predict_length
        rows = FullDocuments(documents, self.vocabulary.pad_id, self.batch_size * self.train_length, longest)
        if longest is not None and (cut := int((documents.lengths > longest).sum())):
            rank_zero_info(f"predict: {cut} of {len(documents)} documents are cut to their first {longest} tokens.")
        left = batches_left(rows.bounds, self.predicted_rows, self.trainer.world_size if self.trainer else 1)
        return DataLoader(rows, sampler=left, **loader_options(self.num_workers, torch.cuda.is_available()))

    def predict_identity(self) -> dict[str, Any]:
        """Say what ``predict_dataloader`` loads, and in which batches, as plain data."""
        return {
            "texts and tokenizer": [part.folder.name for part in self._tokenized()],  # named by a hash of both
            "tokens per batch": self.batch_size * self.train_length,
            "predict_length": self.predict_length,
        }

    def evaluation_documents(self) -> WholeDocuments:
        """Give the validation split's documents whole, each text once.

        They stand in the order of their places in the split, which has nothing to do with sources, lengths or the order
        of the corpus: the first n, like the last, are a fair sample.
        """
        _, rows = self._open_splits()
        return WholeDocuments(rows.documents, rows.selected)

    def _held_out_from_all(
        self, parts: list[TokenizedDocuments], not_empty: list[NDArray[np.int64]], sides: list[NDArray[np.bool_]]
    ) -> list[NDArray[np.bool_]]:
        """Say which held-out documents other rules hold out, too: (D,) for each source; told where there are any."""
        for rule in self._also:
            places = [rule.places(part.text_hashes[some]) for part, some in zip(parts, not_empty, strict=True)]
            sides = [mine & out for mine, out in zip(sides, rule.held_out(places), strict=True)]
        if self._also:
            count, total = sum(int(out.sum()) for out in sides), sum(map(len, sides))
            rules = ", ".join(f"split_seed={one.seed} validation_fraction={one.fraction}" for one in self._also)
            if not count:
                raise ValueError(
                    f"None of the {total} documents is held out both here and by what was trained with {rules}. Use a "
                    "larger corpus, or train with one split_seed."
                )
            rank_zero_info(f"Evaluated are the {count} of {total} documents that are held out by {rules}, too.")
        return sides

    def _open_splits(self) -> tuple[MaskedRows, MaskedRows]:
        self.setup()
        assert self._splits is not None
        return self._splits

    def _sources(self) -> list[TextSource]:
        return self.source.sources if isinstance(self.source, Mixture) else [self.source]

    def _tokenized(self) -> list[TokenizedDocuments]:
        """Open the cache of each source; what it left out is told once."""
        parts = [tokenize(source, self.tokenizer, self.cache_dir, not self._is_told) for source in self._sources()]
        self._is_told = True
        return parts

    def _training_rows(
        self,
        documents: Documents,
        parts: list[TokenizedDocuments],
        selected: list[NDArray[np.int64]],
        masking: Masking,
    ) -> MaskedRows:
        plans = [
            self.rows.plan(part.lengths[some], self.train_length, self.batch_size, self.seed)
            for part, some in zip(parts, selected, strict=True)
        ]
        plan: RowPlan = plans[0]
        if isinstance(self.source, Mixture) and len(parts) > 1:
            plan = JoinedPlan(plans, [len(some) for some in selected], self.source.weights)
        return MaskedRows(documents, _in_joined(parts, selected), plan, masking, self.vocabulary, self.seed)

    def _validation_rows(self, documents: Documents, selected: NDArray[np.int64], masking: Masking) -> MaskedRows:
        # Of all sources together: an order over all of them, and no weights.
        plan = self.rows.plan(documents.lengths[selected], self.train_length, self.batch_size, self.split_seed)
        return MaskedRows(documents, selected, plan, masking, self.vocabulary, self.split_seed)

    def _report(self, rows: MaskedRows, sides: list[NDArray[np.bool_]], places: list[NDArray[np.uint64]]) -> None:
        """Say what is held out, and what the rows are: how many, and how full."""
        held_out, total = sum(int(out.sum()) for out in sides), sum(map(len, sides))
        shares = [
            f"{type(one).__name__} {out.sum()} of {len(out)}" for one, out in zip(self._sources(), sides, strict=True)
        ]
        copies = total - len(np.unique(np.concatenate(places)))
        rank_zero_info(
            f"{held_out} of {total} documents ({held_out / total:.1%}) are held out for validation by their text"
            + (f" ({', '.join(shares)})" if len(shares) > 1 else "")
            + (
                f"; {copies} are exact copies of others, on the same side."
                if copies
                else "; none is a copy of another."
            )
        )
        num_tokens = int(rows.documents.lengths[rows.selected].sum())
        lengths = ", ".join(f"{group.num_rows} of {group.length}" for group in rows.plan.groups)
        rank_zero_info(
            f"{type(self.rows).__name__}: {len(rows)} training rows ({lengths} tokens), "
            f"{rows.plan.efficiency(num_tokens):.1%} of their positions hold tokens."
        )

    def _not_empty(self, documents: TokenizedDocuments) -> NDArray[np.int64]:
        """List the documents that have tokens."""
        num_tokens = int(documents.lengths.sum())
        if num_tokens < self.train_length:
            raise ValueError(
                f"train_length={self.train_length}, but the whole corpus has {num_tokens} tokens: not one row can be "
                "filled. Choose a shorter train_length or a larger corpus."
            )
        return np.flatnonzero(documents.lengths)

    def _batches_in_hand(self) -> int:
        if self.trainer is None:
            return 0
        # Any: Lightning declares a type without `processed`
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.ready - progress.processed


def _joined(parts: list[TokenizedDocuments]) -> TokenizedDocuments | JoinedDocuments:
    return parts[0] if len(parts) == 1 else JoinedDocuments(parts)


def _in_joined(parts: list[TokenizedDocuments], selected: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Number documents of several sources as ``JoinedDocuments`` does."""
    first = np.cumsum([0, *map(len, parts)])
    return np.concatenate([some + start for some, start in zip(selected, first[:-1], strict=True)])


def _sample(parts: list[TokenizedDocuments], selected: list[NDArray[np.int64]]) -> NDArray[np.int32]:
    """Return (tokens,) the beginnings of some training documents."""
    beginnings = [
        part.document(int(document))[:_SAMPLE_TOKENS]
        for part, some in zip(parts, selected, strict=True)
        for document in some[:_SAMPLE_DOCUMENTS]
    ]
    return np.concatenate(beginnings)
