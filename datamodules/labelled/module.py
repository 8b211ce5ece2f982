"""The data module for fine-tuning: tables, a tokenizer and a kind of task put together."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from datamodules.arguments import (
    LARGEST_SEED,
    LONGEST_ROW,
    MOST_WORKERS,
    require_at_least,
    require_kind,
    shown,
)
from datamodules.files import refusing
from datamodules.full_documents import batches_left
from datamodules.labelled.batches import LabelledBatches
from datamodules.labelled.examples import Example, Examples, LeftOutError
from datamodules.labelled.frame import Frame
from datamodules.labelled.table import Table
from datamodules.rows import Group
from datamodules.sampling import EpochSampler, FixedSampler, ResumableLoader, loader_options
from datamodules.split import SPLIT_SEED, VALIDATION_FRACTION, Split, text_hash
from datamodules.tokenizers import Tokenizer
from gau_alpha.vocabulary import Vocabulary


class LabelledTextDataModule(LightningDataModule):
    """Labelled text: encoded once, held in memory, padded batch by batch, in another order every epoch.

    Training rows have at most ``train_length`` tokens; what is cut or left out is counted and said. Rows that are
    evaluated stay whole unless ``evaluation_length`` says otherwise: how a model does on texts longer than it was
    trained on is what this package is for.

    Args:
        examples: The kind of task: what records become.
        train_length: Most tokens of a training row, special ones included. Model and methods take it from here.
        train: Records to train on. Needed by ``fit``.
        validation: Records to validate on. Default: a share of ``train``, which is then not trained on.
        test: Records to test on. Default: those of the validation.
        predict: Records to predict labels for; they need none. Default: those of the test.
        tokenizer: How text becomes token ids. On the command line it is that of ``model.init_from`` unless given.
        batch_size: Rows per batch and rank.
        evaluation_length: Most tokens of a row that is evaluated or predicted. Default: no limit.
        validation_fraction: The share, if there are no records for validation, in (0, 1). Which records, depends on
            their texts alone (see ``datamodules.split``): copies share a side, whatever their labels.
        seed: Seed of the order. The split is the same for every seed.
        num_workers: Worker processes per loader. Changes no batch.
        split_seed: Another seed holds out other records. Leave it as it is, so that all runs hold out the same.

    Attributes:
        predicted_rows: (rows,) int64, the records that need not be predicted again: an interrupted run has.

    Raises:
        ValueError: If a number is out of range, or there is no tokenizer.
    """

    predicted_rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __init__(
        self,
        examples: Examples,
        train_length: int,
        train: Table | None = None,
        validation: Table | None = None,
        test: Table | None = None,
        predict: Table | None = None,
        tokenizer: Tokenizer | None = None,
        batch_size: int = 32,
        evaluation_length: int | None = None,
        validation_fraction: float = VALIDATION_FRACTION,
        seed: int = 0,
        num_workers: int = 0,
        split_seed: int = SPLIT_SEED,
    ) -> None:
        super().__init__()
        require_at_least(1, LONGEST_ROW, train_length=train_length)
        require_at_least(1, batch_size=batch_size)
        if evaluation_length is not None:
            require_at_least(1, evaluation_length=evaluation_length)
        require_at_least(0, LARGEST_SEED, seed=seed)
        require_at_least(0, MOST_WORKERS, num_workers=num_workers)
        require_kind(Examples, examples=examples)
        require_kind(Table | None, train=train, validation=validation, test=test, predict=predict)
        require_kind(Tokenizer | None, tokenizer=tokenizer)
        Split(split_seed, validation_fraction)  # which refuses what is out of range
        if tokenizer is None:
            raise ValueError(
                "data needs a tokenizer, the one that the model was pretrained with: datamodules.TokenizerFile for a "
                "tokenizer.json, datamodules.WordPieceVocab for a vocab.txt. The model's init_from brings none."
            )
        self.examples = examples
        self.tokenizer = tokenizer
        self.train_length = train_length
        self.train = train
        self.validation = validation
        self.test = test
        self.predict = predict
        self.batch_size = batch_size
        self.evaluation_length = evaluation_length
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.num_workers = num_workers
        self.split_seed = split_seed
        self._encoded: dict[str, LabelledBatches] = {}

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids; there as soon as the data module is."""
        return self.tokenizer.vocabulary

    @property
    def labels(self) -> list[str]:
        """What there is to choose from; empty where it is no choice among fixed labels."""
        return self.examples.labels

    def split_rule(self) -> dict[str, Any] | None:
        """Say by which rule records are held out, as plain data; None where those to validate on are given."""
        rule = Split(self.split_seed, self.validation_fraction).describe()
        return None if self.validation is not None else {**rule, "by": "record"}

    def train_dataloader(self) -> ResumableLoader:
        """Load training rows, in another order every epoch; under ``overfit_batches`` always in the same."""
        rows = self._rows("train")
        trainer: Any = self.trainer  # Any: Lightning does not declare `overfit_batches`
        overfits = trainer is not None and trainer.overfit_batches > 0
        sampler = (FixedSampler if overfits else EpochSampler)(len(rows), self.batch_size, self.seed)
        return ResumableLoader(rows, sampler, self._batches_in_hand, self.num_workers, torch.cuda.is_available())

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the validation rows, in their own order."""
        return self._fixed("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the test rows, in their own order."""
        return self._fixed("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Load the rows to predict labels for, in their own order, but for batches that are all ``predicted_rows``."""
        num_rows = len(self._rows("predict"))
        size = self.batch_size * (self.trainer.world_size if self.trainer else 1)  # of the batches of all processes
        bounds = [*range(0, num_rows, size), num_rows]
        left = batches_left(bounds, self.predicted_rows, num_processes=1)
        ranges = tuple((bounds[number], bounds[number + 1]) for number in left)
        return self._fixed("predict", [Group(0, self.batch_size, ranges)])

    def predict_identity(self) -> dict[str, Any]:
        """Say what ``predict_dataloader`` loads, and in which batches, as plain data."""
        digest = hashlib.sha256()
        for example in self._rows("predict").examples:
            for name, array in sorted(example.arrays.items()):
                digest.update(f"{name} {array.dtype} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return {"records": digest.hexdigest(), "batch_size": self.batch_size}

    def _fixed(self, name: str, groups: list[Group] | None = None) -> DataLoader[Any]:
        rows = self._rows(name)
        sampler = FixedSampler(groups or len(rows), self.batch_size, self.seed)
        return DataLoader(rows, sampler=sampler, **loader_options(self.num_workers, torch.cuda.is_available()))

    def _rows(self, name: str) -> LabelledBatches:
        if name not in self._encoded:
            self._encoded[name] = self._encode(name)
        return self._encoded[name]

    def _table(self, name: str) -> tuple[Table, NDArray[np.int64] | None]:
        """Find the records of a part, and which of them belong to it; None: all."""
        if name == "predict" and self.predict is not None:
            return self.predict, None
        if name in ("predict", "test") and self.test is not None:
            return self.test, None
        if name != "train" and self.validation is not None:
            return self.validation, None
        if self.train is None:
            raise ValueError(f"data.init_args.{name} is not set, so there are no records for it. Give their path.")
        if self.validation is not None:
            return self.train, None
        return self.train, np.flatnonzero(self._held_out(self.train) == (name != "train"))

    def _held_out(self, table: Table) -> NDArray[np.bool_]:
        """Say which records are held out: (records,)."""
        records = table.open()
        with refusing(f"{shown(table.path)} can't be read", "Copy or download it again."):
            texts = [self.examples.texts(record) for record in records]
        split = Split(self.split_seed, self.validation_fraction)
        places = split.places(np.array([text_hash(text) for text in texts], dtype=np.uint64))  # (records,)
        if len(np.unique(places)) < 2:
            if len(records):
                try:  # records that lack a column look alike
                    self.examples.encode(
                        records[0], self.tokenizer, Frame(self.tokenizer), self.train_length, with_label=True
                    )
                except (LeftOutError, ValueError) as error:
                    raise ValueError(f"{table.path}, record 0: {error}.") from error
            raise ValueError(
                f"{table.path} has {len(np.unique(places))} record that is no copy of another; training and validation "
                "each need one."
            )
        (out,) = split.held_out([places])
        rank_zero_info(
            f"{out.sum()} of {len(out)} records ({out.mean():.1%}) are held out for validation by their text."
        )
        return out

    def _encode(self, name: str) -> LabelledBatches:
        table, selected = self._table(name)
        records = table.open()
        damaged = f"{shown(table.path)} can't be read", "Copy or download it again."
        limit = self.train_length if name == "train" else self.evaluation_length
        frame, left_out = Frame(self.tokenizer), Counter[str]()
        examples: list[Example] = []
        for number in range(len(records)) if selected is None else selected.tolist():
            with refusing(*damaged):
                record = records[number]
            try:
                examples.append(
                    self.examples.encode(record, self.tokenizer, frame, limit, with_label=name != "predict")
                )
            except LeftOutError as error:
                if name == "predict":  # every row of the output is one of the input
                    raise ValueError(f"{table.path}, record {number}: {error}.") from error
                left_out[str(error)] += 1
            except ValueError as error:
                raise ValueError(f"{table.path}, record {number}: {error}.") from error
        if not examples:
            raise ValueError(f"{table.path} has no record that can be used for {name}: {dict(left_out)}.")
        rank_zero_info(f"{name}: {len(examples)} examples from {table.path}.")
        for reason, count in sorted(left_out.items()):
            rank_zero_warn(f"{name}: left out {count} of {len(examples) + left_out.total()} records: {reason}.")
        if cut := sum(example.is_cut for example in examples):
            rank_zero_warn(f"{name}: {cut} of {len(examples)} rows were cut to {limit} tokens.")
        return LabelledBatches(examples, self.vocabulary.pad_id)

    def _batches_in_hand(self) -> int:
        if self.trainer is None:
            return 0
        # Any: Lightning declares a type without `processed`
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.ready - progress.processed
