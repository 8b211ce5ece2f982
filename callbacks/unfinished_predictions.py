"""What ``predict`` has computed so far: a folder beside its output, which the same command goes on from."""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from gau_alpha.checkpoints.atomic_write import remove_unfinished, write_atomic

ROW = "row"
"""The column that numbers the rows of a finished file, from 0."""

_MADE_BY = "made_by.json"
_PIECE = re.compile(r"rows-[0-9a-f]{32}\.parquet")
_HALF = re.compile(rf"\.({_PIECE.pattern}|{re.escape(_MADE_BY)})\.")  # what a killed process was writing


class UnfinishedPredictions:
    """Rows that were predicted, in files that are whole however a process ends, and what they were made by.

    Args:
        output: What they become.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f"{output.name}.unfinished")

    def rows(self) -> NDArray[np.int64]:
        """Read which rows are there: (rows,) int64. A file that can't be read, after a power cut, say, is removed."""
        found = [np.empty(0, dtype=np.int64)]
        for piece in self._pieces():
            try:
                found.append(pq.read_table(piece, columns=[ROW])[ROW].to_numpy())
            except (pa.ArrowException, OSError, KeyError) as error:
                print(f"{piece} can't be read and is made anew: {str(error).splitlines()[0]}")
                piece.unlink()
        return np.concatenate(found)

    def claim(self, made_by: Mapping[str, Any]) -> None:
        """Note what rows are made by, or see that it is what those were made by that are there.

        Args:
            made_by: Plain data by topic.

        Raises:
            ValueError: If they were made by something else: names it.
        """
        now = json.loads(json.dumps(made_by))
        note = self.folder / _MADE_BY
        if not note.exists():
            write_atomic(note, lambda path: path.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8"))
            return
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if before == now:
            return
        names = [name for name in now if not isinstance(before, dict) or before.get(name) != now[name]]
        raise ValueError(
            f"{self.folder} holds what another command has predicted: its {', '.join(names)} differ. Give that command "
            f"again to go on with it, delete the folder, or give another --predictions.output."
        )

    def add(self, table: pa.Table) -> None:
        """Keep rows.

        Raises:
            NotWrittenError: If the disk is full.
        """
        # Names are drawn at random: no process overwrites what another has kept.
        write_atomic(self.folder / f"rows-{uuid.uuid4().hex}.parquet", lambda path: pq.write_table(table, path))

    def table(self) -> pa.Table:
        """Read all rows, in order, each once; in one chunk, so that how they were kept leaves no trace."""
        tables = [pq.read_table(piece) for piece in self._pieces()]
        if not tables:
            return pa.table({ROW: pa.array([], pa.int64())})
        table = pa.concat_tables(tables).sort_by(ROW)
        rows = table[ROW].to_numpy()
        is_first = np.concatenate([[True], rows[1:] != rows[:-1]])
        return table.filter(pa.array(is_first)).combine_chunks()

    def remove(self) -> None:
        """Remove what ``claim`` and ``add`` have written, and the folder if nothing else is in it."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return
        halves = [_HALF.match(path.name) for path in self.folder.iterdir()]
        remove_unfinished(self.folder / half.group(1) for half in halves if half)
        for path in (*self._pieces(), self.folder / _MADE_BY):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _pieces(self) -> list[Path]:
        inside = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(
            path for path in inside if _PIECE.fullmatch(path.name) and path.is_file() and not path.is_symlink()
        )


def digest(weights: Mapping[str, Tensor]) -> str:
    """Hash weights: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
