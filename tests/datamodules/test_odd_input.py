"""Odd and bad files: for each either the stated documents, or one message that says what and where."""

import errno
import gzip
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from datamodules import (
    CharacterTokenizer,
    Fasta,
    HuggingFaceDataset,
    JsonLines,
    Parquet,
    TextFiles,
    TokenizerFile,
    WordPieceVocab,
    files,
)
from datamodules.cache import tokenize
from datamodules.sources import TextSource


@dataclass
class Case:
    """A file's name and content, how it is read, and what comes of it."""

    name: str
    content: bytes
    source: Callable[[str], TextSource]
    documents: list[str] | None = None
    message: str | None = None
    warning: str | None = None


def lines(*records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def skipping(path: str) -> JsonLines:
    return JsonLines(path, on_bad_record="skip")


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def table(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


GBK = "机器学习".encode("gbk")
UTF_16 = "text\n".encode("utf-16")
LONG = "".join(chr(97 + i * i % 26) for i in range(100_000)).encode()

CASES = {
    "missing field": Case(
        "a.jsonl", lines({"text": "x"}, {"body": "y"}), JsonLines, message=r"line 2: no field 'text'"
    ),
    "null field": Case("a.jsonl", lines({"text": None}), JsonLines, message="line 1: .* holds a NoneType"),
    "number field": Case("a.jsonl", lines({"text": 3}), JsonLines, message="line 1: .* holds a int"),
    "escaped NUL": Case("a.jsonl", lines({"text": "a\0b"}), JsonLines, message="line 1: .* NUL at character 1"),
    "missing, null, number, NUL skipped": Case(
        "a.jsonl",
        lines({"text": "x"}, {"body": "y"}, {"text": None}, {"text": 3}, {"text": 4}, {"text": "\0"}, {"text": "z"}),
        skipping,
        documents=["x", "z"],
        warning="left out 2 records whose field holds a int",
    ),
    "empty field": Case("a.jsonl", lines({"text": ""}, {"text": "x"}), JsonLines, documents=["", "x"]),
    "other columns disagree": Case(
        "a.jsonl", lines({"text": "x", "n": 1}, {"text": "y", "n": "one", "m": []}), JsonLines, documents=["x", "y"]
    ),
    "truncated last line": Case(
        "a.jsonl", lines({"text": "x"}) + b'{"text": "y', JsonLines, message="line 2: not JSON .* ends in the middle"
    ),
    "last line without end": Case("a.jsonl", b'{"text": "x"}', JsonLines, documents=["x"]),
    "json with BOM and CRLF": Case(
        "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\r\n\r\n{"text": "y"}\r\n', JsonLines, documents=["x", "y"]
    ),
    "text with BOM and CRLF": Case("a.txt", b"\xef\xbb\xbfone\r\ntwo", TextFiles, documents=["one\r\ntwo"]),
    "lines with BOM and CRLF": Case(
        "a.txt",
        b"\xef\xbb\xbfone\r\n\r\ntwo\r\n",
        lambda path: TextFiles(path, per_line=True),
        documents=["one", "two"],
    ),
    "GBK": Case(
        "a.txt", b"ok " + GBK, TextFiles, message="a.txt is not utf-8: .* 0xbb at offset 3 .*'gb18030' for GBK"
    ),
    "GBK named": Case("a.txt", GBK, lambda path: TextFiles(path, encoding="gbk"), documents=["机器学习"]),
    "GBK in JSON": Case("a.jsonl", b'{"text": "' + GBK + b'"}', JsonLines, message="not utf-8: .* at offset 10 "),
    "GBK in JSON named": Case(
        "a.jsonl", b'{"text": "' + GBK + b'"}', lambda path: JsonLines(path, encoding="gb18030"), documents=["机器学习"]
    ),
    "UTF-16": Case("a.txt", UTF_16, TextFiles, message="0xff at offset 0 .* begins like UTF-16: set `encoding`"),
    "UTF-16 named": Case("a.txt", UTF_16, lambda path: TextFiles(path, encoding="utf-16"), documents=["text\n"]),
    "UTF-16 without mark": Case(
        "a.txt", "text".encode("utf-16-le"), TextFiles, message="NUL at character 1, so it is no utf-8"
    ),
    "UTF-16 lines named": Case(
        "a.jsonl",
        '{"text": "ਊ"}\n{"text": "y"}\n'.encode("utf-16"),  # U+0A0A: its bytes look like ends of lines
        lambda path: JsonLines(path, encoding="utf-16"),
        documents=["ਊ", "y"],
    ),
    "NUL bytes": Case("a.txt", b"abc\0\0", TextFiles, message="a.txt has a NUL at character 3"),
    "offset behind the first chunk": Case(
        "a.txt", b"x" * (1 << 20) + "é".encode() * 9 + b"\xff", TextFiles, message=f"offset {(1 << 20) + 18} "
    ),
    "character across two chunks": Case(
        "a.txt", b"x" * ((1 << 20) - 1) + "é".encode(), TextFiles, documents=["x" * ((1 << 20) - 1) + "é"]
    ),
    "cut inside a character": Case("a.txt", b"ab\xc3", TextFiles, message="0xc3 at offset 2"),
    "gz": Case("a.txt.gz", gzip.compress(b"one"), TextFiles, documents=["one"]),
    "xz": Case("a.jsonl.xz", lzma.compress(lines({"text": "one"})), JsonLines, documents=["one"]),
    "zst": Case("a.txt.zst", zstd(b"one") + zstd(b" two"), TextFiles, documents=["one two"]),
    "gz cut short": Case("a.gz", gzip.compress(LONG)[:-30], TextFiles, message="a.gz is damaged or cut short: after"),
    "xz cut short": Case("a.xz", lzma.compress(LONG)[:-30], TextFiles, message="a.xz is damaged or cut short: after"),
    "zst cut short": Case("a.zst", zstd(LONG)[:-9], TextFiles, message="a.zst is damaged or cut short: after"),
    "gz that is none": Case("a.gz", b"plain", TextFiles, message="a.gz is damaged or cut short: after 0 bytes"),
    "zst that is none": Case("a.zst", b"plain text, no frame", TextFiles, message="a.zst is damaged or cut short"),
    "xz that is none": Case("a.xz", b"plain", TextFiles, message="a.xz is damaged or cut short"),
    "parquet": Case("a.parquet", table(n=[1, 2], text=["x", ""]), Parquet, documents=["x", ""]),
    "parquet without column": Case(
        "a.parquet", table(body=["x"]), Parquet, message=r"a.parquet: no column 'text', only \['body'\]"
    ),
    "parquet of numbers": Case("a.parquet", table(text=[1, 2]), Parquet, message="column 'text' holds int64"),
    "parquet with null": Case(
        "a.parquet", table(text=["x", None]), Parquet, message="a.parquet, row 2: .* holds a NoneType"
    ),
    "parquet with null skipped": Case(
        "a.parquet",
        table(text=["x", None, "y"]),
        lambda path: Parquet(path, on_bad_record="skip"),
        documents=["x", "y"],
        warning="left out 1 records whose field holds a NoneType",
    ),
    "parquet cut short": Case("a.parquet", table(text=["x"])[:-20], Parquet, message="no whole Parquet file"),
    "fasta": Case(
        "a.fa.gz", gzip.compress(b">one\nacgtN\nAC\n\n>two\r\n;comment\nNNrY\r\n"), Fasta, documents=["ACGTNAC", "NNRY"]
    ),
    "fasta without header": Case("a.fa", b"ACGT\n", Fasta, message="a.fa, line 1: a sequence without a header"),
    "fasta with digits": Case("a.fa", b">x\nAC\nAC1T\n", Fasta, message="a.fa, line 3: '1' is no letter"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_odd_file(tmp_path: Path, case: Case, recwarn):
    (tmp_path / case.name).write_bytes(case.content)
    source = case.source(str(tmp_path))
    if case.message is None:
        assert list(source.documents()) == case.documents
        assert sorted([*source.every(0, 2), *source.every(1, 2)]) == sorted(case.documents)
    else:
        with pytest.raises(ValueError, match=case.message) as error:
            list(source.documents())
        assert case.name in str(error.value)
        assert "\n" not in str(error.value)
    if case.warning:
        assert any(case.warning in str(warning.message) for warning in recwarn)


def test_a_read_error_is_not_called_damage(tmp_path: Path, monkeypatch):
    def broken_disk(file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setitem(files._OPENERS, ".gz", broken_disk)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one"))
    with pytest.raises(OSError, match="Input/output error"):
        list(TextFiles(str(tmp_path / "a.gz")).documents())


@pytest.mark.parametrize("kind", [TextFiles, JsonLines, Parquet, Fasta])
@pytest.mark.parametrize("path", ["empty", "*.nothing", "missing"])
def test_paths_that_name_nothing(tmp_path: Path, kind, path: str):
    (tmp_path / "empty").mkdir()
    source = kind(str(tmp_path / path))
    for use in (source.fingerprint, lambda: list(source.documents())):
        with pytest.raises(ValueError, match=r"names no file .* Give an existing file, a folder .* or a glob"):
            use()


def test_only_blank_lines_is_no_text(tmp_path: Path):
    (tmp_path / "a.txt").write_text("\n \n\t\n")
    for per_line, count in ((False, 1), (True, 0)):
        with pytest.raises(ValueError, match=f"TextFiles yields {count} documents and no text"):
            tokenize(
                TextFiles(str(tmp_path / "a.txt"), per_line=per_line), CharacterTokenizer(), str(tmp_path / "cache")
            )


def test_blank_documents_are_counted_and_make_no_row(tmp_path: Path, caplog):
    (tmp_path / "a.jsonl").write_bytes(lines({"text": ""}, {"text": "x"}, {"text": " \n "}))
    with caplog.at_level("INFO"):
        documents = tokenize(JsonLines(str(tmp_path / "a.jsonl")), CharacterTokenizer(), str(tmp_path / "cache"))
    assert documents.lengths.tolist() == [0, 1, 0]
    assert "2 of 3 documents are blank" in caplog.text
    about = json.loads((documents.folder / "about.json").read_text())
    assert about["documents_without_text"] == 2


def test_unknown_characters_are_counted_and_reported(tmp_path: Path):
    (tmp_path / "a.txt").write_text("AC🦊GT")
    tokenizer = CharacterTokenizer("ACGT")
    with pytest.warns(UserWarning, match=r"CharacterTokenizer does not know 20.0% of the tokens"):
        documents = tokenize(TextFiles(str(tmp_path / "a.txt")), tokenizer, str(tmp_path / "cache"))
    assert documents.document(0).tolist() == [0, 1, tokenizer.unknown_id, 2, 3]
    assert json.loads((documents.folder / "about.json").read_text())["unknown_tokens"] == 1


def byte_level_file(folder: Path) -> TokenizerFile:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[MASK]"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["some words and more words"], trainer)
    tokenizer.save(str(folder / "bpe.json"))
    return TokenizerFile(str(folder / "bpe.json"))


def test_a_word_of_200_000_letters(tmp_path: Path):
    """Byte-level models keep every letter; for WordPiece, as in BERT, it is one unknown word."""
    word = "words" * 40_000
    tokenizer = byte_level_file(tmp_path)
    (ids,) = tokenizer.encode_batch([word])
    assert tokenizer.decode(ids) == word
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[MASK]\nwords\n##words\n")
    pieces = WordPieceVocab(str(tmp_path / "vocab.txt"))
    assert [ids.tolist() for ids in pieces.encode_batch([word, "wordswords"])] == [[1], [3, 4]]


def test_a_read_only_corpus(tmp_path: Path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    folder.chmod(0o500)
    before = sorted(folder.iterdir())
    tokenize(TextFiles(str(folder)), CharacterTokenizer(), str(tmp_path / "cache"))
    assert sorted(folder.iterdir()) == before  # also where the user may write anything
    folder.chmod(0o700)


@pytest.fixture
def local_dataset(tmp_path: Path) -> str:
    folder = tmp_path / "dataset"
    folder.mkdir()
    pq.write_table(pa.table({"n": range(5), "text": ["a", "b", None, "d", "e"]}), folder / "train.parquet")
    return str(folder)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_dataset(local_dataset: str, tmp_path: Path, monkeypatch, streaming: bool):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    source = HuggingFaceDataset(local_dataset, streaming=streaming, on_bad_record="skip")
    with pytest.warns(UserWarning, match="left out 1 records whose field holds a NoneType"):
        assert list(source.documents()) == ["a", "b", "d", "e"]
    assert list(source.every(1, 2)) == ["b", "d"]
    again = HuggingFaceDataset(local_dataset, streaming=streaming, on_bad_record="skip")
    assert again.fingerprint() == source.fingerprint()
    assert HuggingFaceDataset(local_dataset, streaming=streaming).fingerprint() != source.fingerprint()
    with pytest.raises(ValueError, match=r"split train, record 2: .* holds a NoneType"):
        list(HuggingFaceDataset(local_dataset, streaming=streaming).documents())
    with pytest.raises(ValueError, match="no column 'body'"):
        list(HuggingFaceDataset(local_dataset, field="body", streaming=streaming).documents())
    with pytest.raises(ValueError, match="split='nope' names no dataset that can be loaded"):
        list(HuggingFaceDataset(local_dataset, split="nope", streaming=streaming).documents())


def test_hugging_face_dataset_saved_to_disk(tmp_path: Path):
    import datasets

    datasets.Dataset.from_dict({"text": ["a", "b"], "n": [1, 2]}).save_to_disk(str(tmp_path / "saved"))
    for streaming in (False, True):
        source = HuggingFaceDataset(str(tmp_path / "saved"), streaming=streaming)
        assert list(source.documents()) == ["a", "b"]


def test_a_missing_dataset_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"missing' is no folder .* OWNER/NAME"):
        list(HuggingFaceDataset(str(tmp_path / "missing")).documents())


def test_a_document_of_5_megabytes_on_one_line(tmp_path: Path):
    text = "lorem ipsum dolor " * 280_000
    (tmp_path / "a.jsonl").write_bytes(lines({"text": text}))
    assert len(text) > 5_000_000
    documents = tokenize(JsonLines(str(tmp_path / "a.jsonl")), CharacterTokenizer(), str(tmp_path / "cache"))
    assert documents.lengths.tolist() == [len(text)]
    assert CharacterTokenizer().decode(documents.document(0)[-18:]) == text[-18:]
    assert documents.document(0).dtype == np.int32


def test_the_number_of_documents_is_estimated_for_the_progress_bar(tmp_path: Path):
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_bytes(lines(*({"text": "x" * (i % 7)} for i in range(500))))
    path = str(tmp_path / "*.jsonl")
    assert JsonLines(path).num_documents_hint() == pytest.approx(1500, rel=0.01)
    assert TextFiles(path, per_line=True).num_documents_hint() == pytest.approx(1500, rel=0.01)
    assert TextFiles(path).num_documents_hint() == 3
    text = b"".join((tmp_path / f"{number}.jsonl").read_bytes() for number in range(3)) * 20
    for name, compress in (("a.gz", gzip.compress), ("a.xz", lzma.compress), ("a.zst", zstd)):
        (tmp_path / name).write_bytes(compress(text))
        assert JsonLines(str(tmp_path / name)).num_documents_hint() == pytest.approx(30_000, rel=0.1), name
    (tmp_path / "a.gz").write_bytes(b"plain")
    assert JsonLines(str(tmp_path / "a.gz")).num_documents_hint() is None
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"{}"))
    assert JsonLines(str(tmp_path / "b.gz")).num_documents_hint() is None
    (tmp_path / "empty").write_bytes(b"")
    assert JsonLines(str(tmp_path / "empty")).num_documents_hint() is None


def test_the_fingerprint_knows_that_a_name_decides_what_bytes_mean(tmp_path: Path):
    content = gzip.compress(b"text")
    (tmp_path / "a.gz").write_bytes(content)
    (tmp_path / "a.txt").write_bytes(content)
    assert TextFiles(str(tmp_path / "a.gz")).fingerprint() != TextFiles(str(tmp_path / "a.txt")).fingerprint()
