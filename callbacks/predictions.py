"""Writes what ``predict`` computes: embeddings, or the decisions of a fine-tuned head.

B rows of a batch, L length, H hidden size.
"""

import json
import re
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

from gau_alpha.checkpoints.atomic_write import NotWrittenError, explaining_full_disk, write_atomic
from gau_alpha.checkpoints.lock import Lock
from gau_alpha.untrusted.limits import require_path

ROW = "row"
"""The column that numbers the rows of a finished file, from 0."""

SUFFIXES = (".parquet", ".safetensors", ".jsonl")
"""Endings of the files that predictions can be written to; an ending chooses the format."""


class PredictionWriter(Callback):
    """Writes the columns that a module's ``predict_step`` returns, a row per text, in the order of the texts.

    Every process writes its own rows, as they come, into ``OUTPUT.part-RANK-of-NUMBER.parquet``. At the end the first
    process merges the parts by row number and removes them; several machines so need a folder that all of them see.
    What an interrupted run leaves are parts, never half an ``OUTPUT``: whole files, unless it was killed. While it runs
    no other writes the same ``OUTPUT``.

    Args:
        output: The file. Its ending says the format: ``.parquet``, ``.jsonl`` or, where every column is one number or
            one vector per row, ``.safetensors``.

    Raises:
        ValueError: If ``output`` ends in something else. When predictions start, if another process writes ``output``;
            when they end, if rows are missing.
        NotWrittenError: If the disk is full.
    """

    def __init__(self, output: str = "predictions.parquet") -> None:
        require_path("output", output)
        self.output = Path(output).expanduser()
        if self.output.suffix not in SUFFIXES:
            raise ValueError(f"output={output!r} must end in one of {', '.join(SUFFIXES)}.")
        self._lock = Lock(self.output.with_name(f".{self.output.name}.lock"), guards=self.output)
        self._writer: pq.ParquetWriter | None = None
        self._part = self.output
        self._num_rows = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Claim the output, and remove what an interrupted run has left."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        refusal = ""
        if trainer.is_global_zero:
            try:
                self._lock.acquire("Wait until it has ended, or give another --predictions.output.")
                for part in self._parts():
                    part.unlink()
            except ValueError as error:
                refusal = str(error)
        # The first process alone knows, but all must stop, or the others would wait for it.
        if refusal := trainer.strategy.broadcast(refusal):
            raise ValueError(refusal)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append a batch to this process's part."""
        table = as_table(outputs, getattr(pl_module.model, "labels", ()))
        if self._writer is None:
            part = f"{self.output.name}.part-{trainer.global_rank:05}-of-{trainer.world_size:05}.parquet"
            self._part, self._num_rows = self.output.with_name(part), 0
            self._writer = pq.ParquetWriter(self._part, table.schema)
        with explaining_full_disk(self.output, self._part):
            self._writer.write_table(table)
        self._num_rows += len(table)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the parts, on the first process.

        Raises:
            ValueError: If there was no text.
        """
        if self._writer is not None:
            with explaining_full_disk(self.output, self._part):
                self._writer.close()
            self._writer = None
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        parts = self._parts()
        if not parts:
            raise ValueError("There was no text to predict anything of.")
        table = pa.concat_tables([pq.read_table(part) for part in parts]).sort_by(ROW)
        rows = table[ROW].to_numpy()
        if not np.array_equal(rows, np.arange(len(rows))):
            raise ValueError(
                f"The parts of {self.output} hold {len(rows)} rows up to number {rows[-1]}, so some are missing or "
                f"there twice. All processes must write into one folder."
            )
        write_atomic(self.output, lambda path: _WRITE[self.output.suffix](table, path))
        for part in parts:
            part.unlink()
        self._release()
        print(f"{len(rows)} rows: {self.output}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish this process's part, so that it can be read."""
        writer, self._writer = self._writer, None
        if writer is not None and isinstance(exception, NotWrittenError):
            self._part.unlink(missing_ok=True)  # half of it, and room is what is needed
        elif writer is not None:
            writer.close()
            print(f"{self._num_rows} rows are kept in {self._part}, until the same command begins anew.")

        self._release()

    def _release(self) -> None:
        if self._lock.is_held:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()

    def _parts(self) -> list[Path]:
        ours = re.compile(re.escape(self.output.name) + r"\.part-\d{5}-of-\d{5}\.parquet")
        beside = self.output.parent.iterdir()
        return sorted(path for path in beside if ours.fullmatch(path.name) and path.is_file() and not path.is_symlink())


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
