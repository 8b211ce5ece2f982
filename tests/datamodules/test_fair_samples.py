"""The first batches, and the first documents, of an evaluation are a fair sample of all."""

import json
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import ByteTokenizer, JsonLines, Mixture, Packed, TextDataModule, VariableLength
from datamodules.rows import FixedSet

DICE = random.Random(1)


def write(folder: Path, name: str, texts: list[str]) -> JsonLines:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return JsonLines(str(file))


def words(letters: str, low: int, high: int) -> str:
    return " ".join("".join(DICE.choices(letters, k=5)) for _ in range(DICE.randint(low, high)))


def make(tmp_path: Path, source, **changes) -> TextDataModule:
    return TextDataModule(
        source, ByteTokenizer(), 64, 8, validation_fraction=0.4, cache_dir=str(tmp_path / "cache"), **changes
    )


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    letters = write(tmp_path, "letters", [words("abcdefgh", 40, 200) for _ in range(100)])
    digits = write(tmp_path, "digits", [words("0123456789", 40, 200) for _ in range(100)])
    return Mixture([letters, digits], [1, 1])


def share_of_digits(ids: np.ndarray | torch.Tensor) -> float:
    letters = [chr(token) for token in np.asarray(ids).ravel().tolist() if token < 256]
    return sum(map(str.isdigit, letters)) / sum(letter != " " for letter in letters)


def test_the_first_evaluation_documents_of_a_mixture_are_of_all_sources(tmp_path: Path, mixture: Mixture):
    documents = make(tmp_path, mixture).evaluation_documents()
    kinds = [share_of_digits(document) for document in documents]
    assert len(kinds) > 50
    for some in (kinds[:20], kinds[-20:]):
        assert 0.2 < np.mean(some) < 0.8
    # over lengths, too
    lengths = [len(document) for document in documents]
    assert np.mean(lengths[:25]) == pytest.approx(np.mean(lengths), rel=0.25)


def test_the_first_validation_batches_of_a_mixture_are_of_all_sources(tmp_path: Path, mixture: Mixture):
    first = [batch["input_ids"] for batch in islice(make(tmp_path, mixture).val_dataloader(), 4)]
    assert 0.25 < share_of_digits(torch.cat(first)) < 0.75


def test_the_first_validation_batches_of_packed_rows_are_not_the_full_ones(tmp_path: Path):
    """Short and long documents: packing puts full rows of the long ones first."""
    texts = [words("0123456789", 40, 60) if number % 10 == 0 else words("abcdefgh", 1, 4) for number in range(400)]
    loader = make(tmp_path, write(tmp_path, "both", texts), rows=Packed()).val_dataloader()
    batches = [batch["input_ids"] for batch in loader]
    assert len(batches) > 8
    assert share_of_digits(torch.cat(batches[:4])) == pytest.approx(share_of_digits(torch.cat(batches)), abs=0.15)


def test_the_first_validation_batches_of_variable_length_have_all_lengths(tmp_path: Path):
    source = write(tmp_path, "texts", [words("abcdefgh", 60, 200) for _ in range(100)])
    loader = make(tmp_path, source, rows=VariableLength(FixedSet([16, 32, 64]))).val_dataloader()
    lengths = [batch["input_ids"].shape[1] for batch in loader]
    assert len(lengths) > 40
    assert set(lengths[:12]) == {16, 32, 64}


def test_the_order_is_a_function_of_the_content(tmp_path: Path, mixture: Mixture):
    one = make(tmp_path, mixture).evaluation_documents()
    turned = Mixture(mixture.sources[::-1], [3, 1], seed=5)
    other = make(tmp_path, turned, seed=7)
    assert [document.tolist() for document in one] == [document.tolist() for document in other.evaluation_documents()]
