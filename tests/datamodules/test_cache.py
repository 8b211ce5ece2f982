import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest

from datamodules import ByteTokenizer, TextFiles, TokenizerFile, TokenMasking
from datamodules.cache import tokenize
from datamodules.sources import TextSource


class Texts(TextSource):
    """A source made of Python strings."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def documents(self) -> Iterator[str]:
        yield from self.texts

    def fingerprint(self) -> str:
        return repr(self.texts)


class CountingTokenizer(ByteTokenizer):
    """Writes a line to a file for every batch it encodes, so that other processes' work is counted too."""

    def __init__(self, log: Path, seconds: float = 0.0) -> None:
        self.log = log
        self.seconds = seconds

    def encode_batch(self, texts):
        with self.log.open("a") as log:
            log.write(f"{len(texts)}\n")
        time.sleep(self.seconds)
        return super().encode_batch(texts)

    def count(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def tokenizer(tmp_path: Path) -> CountingTokenizer:
    return CountingTokenizer(tmp_path / "log")


@pytest.fixture
def cache_dir(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def test_documents_come_back_over_many_batches(monkeypatch, tokenizer, cache_dir):
    monkeypatch.setattr("datamodules.cache._BATCH_DOCUMENTS", 4)
    texts = [f"document {i} " * (i % 5) for i in range(23)]
    documents = tokenize(Texts(*texts), tokenizer, cache_dir)
    assert tokenizer.count() == 6
    assert len(documents) == 23
    assert documents.lengths.tolist() == [len(text) for text in texts]
    for i, text in enumerate(texts):
        assert bytes(documents.document(i).tolist()).decode() == text
    for index in (-1, 23):
        with pytest.raises(IndexError):
            documents.document(index)


def test_batches_are_bounded_by_characters(monkeypatch, tokenizer, cache_dir):
    monkeypatch.setattr("datamodules.cache._BATCH_CHARACTERS", 100)
    tokenize(Texts(*["x" * 60] * 6), tokenizer, cache_dir)
    assert tokenizer.log.read_text().split() == ["2", "2", "2"]


def test_documents_are_views_of_the_file(tokenizer, cache_dir):
    documents = tokenize(Texts("one", "two"), tokenizer, cache_dir)
    assert not documents.document(0).flags.owndata
    assert not documents.document(0).flags.writeable
    copy = pickle.dumps(documents)
    assert len(copy) < 500
    assert pickle.loads(copy).document(1).tolist() == list(b"two")


def test_the_file_is_a_dataset(tokenizer, cache_dir):
    folder = tokenize(Texts("one", "", "three"), tokenizer, cache_dir).folder
    dataset = datasets.Dataset.from_file(str(folder / "documents.arrow"))
    assert [bytes(ids) for ids in dataset["input_ids"]] == [b"one", b"", b"three"]


def test_second_use_tokenises_nothing(tokenizer, cache_dir):
    tokenize(Texts("one"), tokenizer, cache_dir)
    assert tokenizer.count() == 1
    tokenize(Texts("one"), tokenizer, cache_dir)
    assert tokenizer.count() == 1
    tokenize(Texts("two"), tokenizer, cache_dir)
    assert tokenizer.count() == 2


def test_cache_goes_by_content_not_by_path_or_time(tmp_path: Path, tokenizer, cache_dir):
    (tmp_path / "a.txt").write_text("one")
    tokenize(TextFiles(str(tmp_path / "a.txt")), tokenizer, cache_dir)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    os.utime(tmp_path / "b.txt", (1, 1))
    tokenize(TextFiles(str(tmp_path / "b.txt")), tokenizer, cache_dir)
    assert tokenizer.count() == 1

    (tmp_path / "b.txt").write_text("two")
    os.utime(tmp_path / "b.txt", (1, 1))  # same path, size and time
    assert tokenize(TextFiles(str(tmp_path / "b.txt")), tokenizer, cache_dir).document(0).tolist() == list(b"two")
    assert tokenizer.count() == 2


def test_another_tokenizer_is_another_cache(tokenizer_file, cache_dir):
    source = Texts("the quick fox")
    folders = {
        tokenize(source, tokenizer, cache_dir).folder
        for tokenizer in (
            ByteTokenizer(),
            TokenizerFile(tokenizer_file("BPE")),
            TokenizerFile(tokenizer_file("WordPiece")),
        )
    }
    assert len(folders) == 3


@pytest.mark.slow
def test_rows_and_masks_are_not_part_of_the_key(make_data, tokenizer):
    for changes in ({}, {"masking": TokenMasking(rate=0.3)}, {"train_length": 16}, {"seed": 1}, {"batch_size": 2}):
        data = make_data(tokenizer=tokenizer, **changes)
        data.prepare_data()
        data.setup("fit")
    assert tokenizer.count() == 1


def test_failure_leaves_nothing_behind(tokenizer, cache_dir):
    class Breaking(Texts):
        def documents(self):
            yield "one"
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        tokenize(Breaking("one", "two"), tokenizer, cache_dir)
    assert [file.suffix for file in Path(cache_dir).iterdir()] == [".lock"]
    assert len(tokenize(Texts("one", "two"), tokenizer, cache_dir)) == 2


@pytest.mark.slow
def test_what_a_killed_process_left_is_not_used(monkeypatch, tokenizer, cache_dir):
    monkeypatch.setattr("datamodules.cache._BATCH_DOCUMENTS", 1)
    source = Texts("one", "two", "three")

    def die_half_way() -> None:
        encode = tokenizer.encode_batch
        monkeypatch.setattr(tokenizer, "encode_batch", lambda texts: os._exit(9) if texts == ["two"] else encode(texts))
        tokenize(source, tokenizer, cache_dir)

    process = multiprocessing.get_context("fork").Process(target=die_half_way)
    process.start()
    process.join()
    assert process.exitcode == 9
    (unfinished,) = Path(cache_dir).glob("*.unfinished-*")
    assert (unfinished / "made" / "documents.arrow").exists()

    assert len(tokenize(source, tokenizer, cache_dir)) == 3
    assert tokenizer.count() == 1 + 3
    assert not unfinished.exists()


@pytest.mark.slow
def test_processes_that_start_together_tokenise_once(tmp_path: Path, cache_dir):
    tokenizer = CountingTokenizer(tmp_path / "log", seconds=0.5)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    results = context.Queue()

    def work() -> None:
        barrier.wait()
        results.put(tokenize(Texts("one", "two"), tokenizer, cache_dir).document(1).tolist())

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [list(b"two")] * 3
    for process in processes:
        process.join()
    assert tokenizer.count() == 1


@pytest.mark.parametrize("texts", [(), ("", "")])
def test_empty_corpus_is_an_error_and_no_cache(texts, tokenizer, cache_dir):
    with pytest.raises(ValueError, match=f"Texts yields {len(texts)} documents and no text"):
        tokenize(Texts(*texts), tokenizer, cache_dir)
    assert not [path for path in Path(cache_dir).iterdir() if path.is_dir()]


def test_default_folder(monkeypatch, tmp_path: Path, tokenizer):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tokenize(Texts("one"), tokenizer).folder.parent == tmp_path / "home/.cache/gau_alpha_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tokenize(Texts("one"), tokenizer).folder.parent == tmp_path / "xdg/gau_alpha_lightning"


def test_ids_survive_beyond_16_bits(cache_dir):
    class Wide(ByteTokenizer):
        def encode_batch(self, texts):
            return [np.array([0, 70_000, 2**31 - 1], dtype=np.int32) for _ in texts]

        def fingerprint(self) -> str:
            return "wide"

    assert tokenize(Texts("x"), Wide(), cache_dir).document(0).tolist() == [0, 70_000, 2**31 - 1]
