"""Writes what ``predict`` computes: embeddings, or the decisions of a fine-tuned head.

B rows of a batch, L length, H hidden size.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from callbacks.unfinished_predictions import ROW, UnfinishedPredictions, digest
from gau_alpha.checkpoints.atomic_write import NotWrittenError, write_atomic
from gau_alpha.checkpoints.lock import Lock
from gau_alpha.untrusted.limits import require_number, require_path

SUFFIXES = (".parquet", ".safetensors", ".jsonl")
"""Endings of the files that predictions can be written to; an ending chooses the format."""

_MODEL = ("config", "method", "head", "labels", "kernel")  # the hyperparameters that what is predicted depends on


class PredictionWriter(Callback):
    """Writes the columns that a module's ``predict_step`` returns, a row per text, in the order of the texts.

    Every process keeps its own rows, every few seconds, in a folder ``OUTPUT.unfinished``. At the end the first process
    merges them by row number and removes the folder; several machines so need a disk that all of them see. However a
    run ends, the same command goes on from what it has kept, and writes the same file to the last bit; there is never
    half an ``OUTPUT``. While it runs no other writes the same ``OUTPUT``.

    What is kept is gone on from where the data module says what it loads (``predict_identity``) and leaves out what is
    there (``predicted_rows``), and no limit is set to the batches; otherwise a run begins anew.

    Args:
        output: The file. Its ending says the format: ``.parquet``, ``.jsonl`` or, where every column is one number or
            one vector per row, ``.safetensors``.
        seconds_between_saves: How often rows are kept.

    Raises:
        ValueError: If ``output`` ends in something else, or ``seconds_between_saves`` is negative. When predictions
            start, if another process writes ``output``, or something else was predicted before and is unfinished; when
            they end, if rows are missing.
        NotWrittenError: If the disk is full.
    """

    def __init__(self, output: str = "predictions.parquet", seconds_between_saves: float = 10.0) -> None:
        require_path("output", output)
        require_number("seconds_between_saves", seconds_between_saves, least=0)
        self.output = Path(output).expanduser()
        if self.output.suffix not in SUFFIXES:
            raise ValueError(f"output={output!r} must end in one of {', '.join(SUFFIXES)}.")
        self.seconds_between_saves = seconds_between_saves
        self._lock = Lock(self.output.with_name(f".{self.output.name}.lock"), guards=self.output)
        self._unfinished = UnfinishedPredictions(self.output)
        self._tables: list[pa.Table] = []  # not kept yet
        self._saved = 0.0  # when some were
        self._resumable = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Claim the output, and let the data module leave out what is there already."""
        if stage != "predict":
            return
        self.output.parent.mkdir(parents=True, exist_ok=True)
        data = _resumable_data(trainer)
        refusal, rows = "", np.empty(0, dtype=np.int64)
        if trainer.is_global_zero:
            try:
                self._lock.acquire("Wait until it has ended, or give another --predictions.output.")
                if data is None:
                    self._unfinished.remove()
                rows = self._unfinished.rows()
            except ValueError as error:
                refusal = str(error)
        # The first process alone knows, but all must stop, or the others would wait for it.
        refusal, rows = trainer.strategy.broadcast((refusal, rows))
        if refusal:
            raise ValueError(refusal)
        if data is not None:
            data.predicted_rows = rows

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that what is there was predicted by the same weights from the same texts."""
        self._tables, self._saved, self._resumable = [], time.monotonic(), False
        weights = trainer.strategy.lightning_module_state_dict()  # sharded strategies gather it from all processes
        data, refusal = _resumable_data(trainer), ""
        if trainer.is_global_zero and data is not None:
            model = {name: value for name, value in pl_module.hparams.items() if name in _MODEL}
            made_by = {"weights": digest(weights), "model": model, "precision": str(trainer.precision)}
            try:
                self._unfinished.claim({**made_by, "data": data.predict_identity()})
            except ValueError as error:
                refusal = str(error)
            if not refusal and len(data.predicted_rows):
                print(f"{len(data.predicted_rows)} rows are there already: {self._unfinished.folder}")
        if refusal := trainer.strategy.broadcast(refusal):
            raise ValueError(refusal)
        self._resumable = data is not None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take a batch, and keep what there is, now and then."""
        self._tables.append(as_table(outputs, getattr(pl_module.model, "labels", ())))
        if time.monotonic() - self._saved >= self.seconds_between_saves:
            self._save()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge what all have kept, on the first process.

        Raises:
            ValueError: If there was no text.
        """
        self._save()
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        table = self._unfinished.table()
        rows = table[ROW].to_numpy()
        if not len(rows):
            raise ValueError("There was no text to predict anything of.")
        if not np.array_equal(rows, np.arange(len(rows))):
            raise ValueError(
                f"{self._unfinished.folder} holds {len(rows)} rows up to number {rows[-1]}, so some are missing. All "
                f"processes must write into one folder."
            )
        write_atomic(self.output, lambda path: _WRITE[self.output.suffix](table, path))
        self._unfinished.remove()
        self._release()
        print(f"{len(rows)} rows: {self.output}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep this process's rows, for the same command to go on from."""
        if not isinstance(exception, NotWrittenError):
            self._save()
            if self._resumable and trainer.is_global_zero:
                print(f"What is predicted is kept in {self._unfinished.folder}: the same command goes on from it.")
        self._release()

    def _save(self) -> None:
        tables, self._tables = self._tables, []
        if tables:
            self._unfinished.add(pa.concat_tables(tables))
        self._saved = time.monotonic()

    def _release(self) -> None:
        if self._lock.is_held:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()


def _resumable_data(trainer: Trainer) -> Any:
    """Return the trainer's data module, if it can leave out what is predicted; otherwise None."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
    limit = trainer.limit_predict_batches
    whole = isinstance(limit, float) and limit == 1  # the number 1 is one batch
    return data if whole and hasattr(data, "predict_identity") else None


def as_table(prediction: Mapping[str, Tensor], labels: Sequence[str] = ()) -> pa.Table:
    """Make a table of a batch's columns.

    Args:
        prediction: Columns (B,) or (B, …) by name. ``sample_ids`` numbers the rows; those below 0 only fill the batch
            up. A column ``label`` is written by name; where it has an entry per token, −100 is left out.
        labels: The names.
    """
    columns = {name: values.cpu() for name, values in prediction.items()}
    rows = columns.pop("sample_ids")
    is_row = rows >= 0
    arrays = {ROW: pa.array(rows[is_row].numpy())}
    for name, values in columns.items():
        arrays[name] = _named(values[is_row], labels) if name == "label" and labels else _array(values[is_row])
    return pa.table(arrays)


def _named(label: Tensor, labels: Sequence[str]) -> pa.Array:
    if label.ndim == 1:
        return pa.array([labels[number] for number in label.tolist()])
    return pa.array(
        [[labels[number] for number in row if number >= 0] for row in label.tolist()], pa.list_(pa.string())
    )


def _array(values: Tensor) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values.numpy())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.flatten().numpy()), values.shape[1])


def _write_safetensors(table: pa.Table, path: Path) -> None:
    tensors = {name: _tensor(name, table[name]) for name in table.column_names if name != ROW}
    save_file(tensors, path)


def _tensor(name: str, column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(column.type):
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(flat).reshape(len(column), column.type.list_size)  # (rows, H)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.ascontiguousarray(column.to_numpy())  # (rows,)
    raise ValueError(f"The column {name} holds {column.type}, which is no tensor: write .parquet or .jsonl.")


def _write_lines(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for batch in table.to_batches():
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


_WRITE = {
    ".parquet": lambda table, path: pq.write_table(table, path),
    ".safetensors": _write_safetensors,
    ".jsonl": _write_lines,
}
