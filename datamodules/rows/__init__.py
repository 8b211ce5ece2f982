"""How documents become the rows that the model trains on.

A new way is a subclass of ``RowMaker`` whose ``plan`` says for every row which pieces of which documents it holds, and
which rows may share a batch; the order of rows, ranks, workers and resuming are the sampler's, for all plans alike.
``tests/datamodules/test_row_makers.py`` has the list of classes that every general test runs over.
"""

from datamodules.rows.base import Group, Pieces, RowMaker, RowPlan
from datamodules.rows.blocks import Blocks
from datamodules.rows.joined import JoinedPlan
from datamodules.rows.lengths import FixedSet, LogUniform, Uniform
from datamodules.rows.packed import Packed
from datamodules.rows.variable import VariableLength

__all__ = [
    "Blocks",
    "FixedSet",
    "Group",
    "JoinedPlan",
    "LogUniform",
    "Packed",
    "Pieces",
    "RowMaker",
    "RowPlan",
    "Uniform",
    "VariableLength",
]
