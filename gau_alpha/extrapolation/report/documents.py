"""What was measured of each document, as a table for other statistics than the report's own."""

import io
from collections.abc import Sequence

import numpy as np

from gau_alpha.extrapolation.result import ExtrapolationResult

COLUMNS = ("protocol", "method", "length", "document", "targets", "positions", "loss", "correct", "control_loss")
"""Of the table, a row per (protocol, method, length, document).

``document`` is the document's place in ``evaluation_documents()``, ``loss`` nats and ``correct`` right predictions,
both summed over ``positions``: the ``targets`` and whatever these stand for. ``control_loss`` is the loss with other
text in the place of the passage, under the protocol ``copy``; null under others.
"""


def parquet(rows: Sequence[ExtrapolationResult]) -> bytes:
    """Make a Parquet file.

    Args:
        rows: Of which those without figures of documents are left out.
    """
    import pyarrow as pa  # takes a while to import
    import pyarrow.parquet as pq

    measured = [(row, row.documents) for row in rows if row.documents is not None]
    counts = [len(figures.document) for _, figures in measured]
    columns = {}
    for name, kind in (("protocol", pa.string()), ("method", pa.string()), ("length", pa.int64())):
        values = [getattr(row, name) for row, _ in measured]
        repeated = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
        columns[name] = pa.array(repeated, kind)
    for name in COLUMNS[3:]:
        arrays = [getattr(figures, name) for _, figures in measured]
        whole = np.concatenate(arrays) if arrays else np.empty(0)
        whole_numbers = name in ("document", "targets", "positions")
        columns[name] = pa.array(whole, pa.int64() if whole_numbers else pa.float64(), mask=np.isnan(whole))
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()
