import numpy as np
import pytest

from datamodules.rows import Blocks


@pytest.mark.parametrize("row_length", [1, 3, 4, 100])
def test_same_rows_as_a_slow_loop(row_length: int):
    lengths = np.array([0, 5, 0, 0, 3, 12, 4, 1, 0])
    expected = [
        (document, start, min(row_length, length - start))
        for document, length in enumerate(lengths.tolist())
        for start in range(0, length, row_length)
    ]
    blocks = Blocks(lengths, row_length)
    assert len(blocks) == len(expected)
    located = blocks.locate(np.arange(len(blocks)))
    assert list(zip(*(column.tolist() for column in located), strict=True)) == expected
    # every token exactly once
    assert sum(size for _, _, size in expected) == lengths.sum()


def test_rows_in_any_order():
    blocks = Blocks(np.array([5, 3, 12]), 4)
    rows = np.array([5, 0, 1, 5])
    assert [column.tolist() for column in blocks.locate(rows)] == [[2, 0, 0, 2], [8, 0, 4, 8], [4, 4, 1, 4]]


def test_many_documents_need_no_object_each():
    blocks = Blocks(np.full(3_000_000, 130, dtype=np.int64), 64)
    assert len(blocks) == 9_000_000
    documents, starts, sizes = blocks.locate(np.array([8_999_999]))
    assert (documents[0], starts[0], sizes[0]) == (2_999_999, 128, 2)
