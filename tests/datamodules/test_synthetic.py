"""The answer to every question lies where it is said to lie."""

import pytest

from datamodules import Synthetic


def test_copy_repeats_with_the_period_and_no_shorter_one():
    documents = list(Synthetic("copy", distance=20, length=90, num_documents=5).documents())
    assert len(set(documents)) == 5
    for document in documents:
        assert len(document) == 90
        assert document[20:] == document[:-20]
        assert len(set(document[:20])) > 5
        assert document[10:] != document[:-10]


def test_recall_repeats_half_of_the_records_at_the_distance_and_the_key_says_which():
    num_repeats = num_records = 0
    for document in Synthetic("recall", distance=24, length=240, num_documents=40).documents():
        assert len(document) == 240
        records = document.split()
        assert all(len(record) == 5 and record[2] == "=" for record in records)
        for number in range(4, len(records)):
            key, value = records[number].split("=")
            same_key = records[number - 4].startswith(f"{key}=")
            num_records += 1
            if same_key:
                assert records[number - 4] == f"{key}={value}"
                num_repeats += 1
    assert num_repeats / num_records == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("task", ["copy", "recall"])
def test_documents_are_functions_of_seed_and_number(task: str):
    source = Synthetic(task, distance=12, length=50, num_documents=10)
    documents = list(source.documents())
    assert list(Synthetic(task, distance=12, length=50, num_documents=4).documents()) == documents[:4]
    assert list(source.every(3, 4)) == documents[3::4]
    other = Synthetic(task, distance=12, length=50, num_documents=10, seed=1)
    assert not set(documents) & set(other.documents())
    assert other.fingerprint() != source.fingerprint()
    assert source.num_documents_hint() == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "sort"}, r"task='sort' must be one of \['copy', 'recall'\]"),
        ({"distance": 0}, "distance=0 must be at least 1"),
        ({"task": "recall", "distance": 20}, "distance=20 must be.* a multiple of 6"),
        ({"distance": 50, "length": 50}, "length=50 must be above distance=50"),
        ({"num_documents": 0}, "num_documents=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
    ],
)
def test_bad_arguments(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        Synthetic(**arguments)
