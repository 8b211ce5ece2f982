"""A cache serves what it was made of and nothing else. Tokenising is counted, not timed."""

from pathlib import Path

import pytest

from datamodules import SpanMasking, TextDataModule, TextFiles, TokenizerFile, TokenMasking, WordPieceVocab
from datamodules.tokenizers import Tokenizer
from datamodules.tokenizers.training import train_tokenizer

pytestmark = pytest.mark.slow

VOCAB = ["[PAD]", "[UNK]", "[MASK]", "the", "fox", "##es", "dog", "The"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text("The foxes the dog " * (number + 3))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    return folder


@pytest.fixture
def count(monkeypatch):
    """How many batches of text have been tokenised."""
    counts = {"batches": 0}
    encode = WordPieceVocab.encode_batch

    def counting(self: Tokenizer, texts):
        counts["batches"] += 1
        return encode(self, texts)

    monkeypatch.setattr("datamodules.tokenizers.library.LibraryTokenizer.encode_batch", counting)
    return lambda: counts["batches"]


def rows(corpus: Path, lowercase: bool = True, **changes) -> list:
    tokenizer = WordPieceVocab(str(corpus.parent / "vocab.txt"), lowercase)
    arguments = {"train_length": 8, "batch_size": 2, "masking": TokenMasking()} | changes
    data = TextDataModule(TextFiles(str(corpus)), tokenizer, cache_dir=str(corpus.parent / "cache"), **arguments)
    data.prepare_data()
    data.setup("fit")
    return [batch["input_ids"].tolist() for batch in data.train_dataloader()]


def test_a_second_start_tokenises_nothing(corpus: Path, count):
    first = rows(corpus)
    assert count() == 1
    assert rows(corpus) == first
    assert count() == 1


def test_what_shapes_rows_and_masks_does_not_tokenise_again_but_takes_effect(corpus: Path, count):
    first = rows(corpus)
    for changes in ({"masking": TokenMasking(0.5)}, {"masking": SpanMasking()}, {"seed": 1}, {"train_length": 4}):
        assert rows(corpus, **changes) != first
    assert len(rows(corpus, train_length=4)[0][0]) == 4
    assert count() == 1


def test_another_vocabulary_under_the_same_path(corpus: Path, count):
    first = rows(corpus)
    (corpus.parent / "vocab.txt").write_text("\n".join([*VOCAB[:3], *reversed(VOCAB[3:])]))
    assert rows(corpus) != first
    assert count() == 2


def test_another_text_under_the_same_path(corpus: Path, count):
    first = rows(corpus)
    (corpus / "2.txt").write_text("dog dog " * 9)
    assert rows(corpus) != first
    assert count() == 2


def test_other_casing(corpus: Path, count):
    first = rows(corpus)
    assert rows(corpus, lowercase=False) != first
    assert count() == 2


def test_another_tokenizer_file_under_the_same_path(corpus: Path, count):
    path = corpus.parent / "tokenizer.json"
    for size in (270, 280):
        train_tokenizer(TextFiles(str(corpus)), "bpe", size).save(str(path))
        data = TextDataModule(
            TextFiles(str(corpus)), TokenizerFile(str(path)), 8, cache_dir=str(corpus.parent / "cache")
        )
        data.setup("fit")
    assert count() == 2
