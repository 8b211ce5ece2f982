import numpy as np
import pytest

from datamodules.rows.blocks import BlockPlan


@pytest.mark.parametrize("row_length", [1, 3, 4, 100])
def test_same_rows_as_a_slow_loop(row_length: int):
    lengths = np.array([0, 5, 0, 0, 3, 12, 4, 1, 0])
    expected = [
        (document, start, min(row_length, length - start))
        for document, length in enumerate(lengths.tolist())
        for start in range(0, length, row_length)
    ]
    blocks = BlockPlan(lengths, row_length)
    assert len(blocks) == len(expected)
    located = blocks.pieces(np.arange(len(blocks)))[1:]
    assert list(zip(*(column.tolist() for column in located), strict=True)) == expected
    # every token exactly once
    assert sum(size for _, _, size in expected) == lengths.sum()


def test_rows_in_any_order():
    blocks = BlockPlan(np.array([5, 3, 12]), 4)
    rows = np.array([5, 0, 1, 5])
    assert [column.tolist() for column in blocks.pieces(rows)[1:]] == [[2, 0, 0, 2], [8, 0, 4, 8], [4, 4, 1, 4]]


def test_many_documents_need_no_object_each():
    blocks = BlockPlan(np.full(3_000_000, 130, dtype=np.int64), 64)
    assert len(blocks) == 9_000_000
    _, documents, starts, sizes = blocks.pieces(np.array([8_999_999]))
    assert (documents[0], starts[0], sizes[0]) == (2_999_999, 128, 2)
