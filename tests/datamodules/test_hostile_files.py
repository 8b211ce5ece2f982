"""Settings and files from strangers: whatever they hold, either it works or one message of ours says what is wrong."""

import contextlib
import gzip
import importlib
import inspect
import json
import os
import resource
import shutil
import signal
import stat
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules import (
    ByteTokenizer,
    Fasta,
    HuggingFaceDataset,
    JsonLines,
    LabelledTextDataModule,
    Mixture,
    Parquet,
    SequenceExamples,
    StreamingTextDataModule,
    Synthetic,
    TextDataModule,
    TextFiles,
    TokenizerFile,
    TokenMasking,
    WordPieceVocab,
)
from datamodules.cache import tokenize
from datamodules.labelled import Examples, Table
from datamodules.masking import LinearRate, RateMasking, RateSchedule, Segmenter, WordList
from datamodules.rows import FixedSet, RowMaker, Uniform, VariableLength
from datamodules.rows.lengths import LengthDistribution
from datamodules.sources import TextSource
from datamodules.tokenizers import Tokenizer

PACKAGES = ("", ".sources", ".tokenizers", ".rows", ".masking", ".labelled", ".streaming")
MADE_BY_PLANS = {"Group", "JoinedPlan", "Pieces"}  # never by a user
WRONG = {
    "None": None,
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "1e308": 1e308,
    "10**30": 10**30,
    "2**64": 2**64,
    "2**20000": 2**20000,
    "x": "x",
    "empty": "",
    "NUL": "a\0b",
    "surrogate": "\ud800",
    "nobody's home": "~nobody-at-all/x",
    "long": "x" * 5000,
    "[]": [],
    "[None]": [None],
    "[nan]": [float("nan")],
    "[-1]": [-1],
    "[1e308, 1e308]": [1e308, 1e308],
    "[[]]": [[]],
    "{}": {},
    "True": True,
    "object": object(),
}


def exported() -> dict[str, type]:
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f"datamodules{package}")
        found |= {name: getattr(module, name) for name in module.__all__}
    return {
        name: cls
        for name, cls in sorted(found.items())
        if inspect.isclass(cls) and not inspect.isabstract(cls) and name not in MADE_BY_PLANS and parameters(cls)
    }


def parameters(cls: type) -> list[str]:
    # without a constructor of its own, the signature is that of `object`
    found = inspect.signature(cls).parameters.values()
    return [one.name for one in found if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


CLASSES = exported()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[MASK]\nthe\nfox\n")
    (folder / "words.txt").write_text("机器\n学习 12\n")
    (folder / "a.txt").write_text(">one\nACGT\n")
    (folder / "a.jsonl").write_text('{"text": "one"}\n')
    pq.write_table(pa.table({"text": ["one", "two"]}), folder / "a.parquet")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_file()))
    (folder / "labelled.jsonl").write_text('{"text": "one", "label": "no"}\n{"text": "two", "label": "yes"}\n')
    datasets.Dataset.from_dict({"text": ["one", "two"]}).save_to_disk(str(folder / "saved"))
    return folder


@pytest.fixture
def valid(folder: Path, tmp_path: Path) -> Callable[[type], dict[str, object]]:
    """Return what makes a constructor's call right, by the names of its required arguments."""
    files = {
        "HuggingFaceDataset": "saved",
        "JsonLines": "a.jsonl",
        "Parquet": "a.parquet",
        "Table": "saved",
        "TokenizerFile": "tokenizer.json",
        "WordList": "words.txt",
        "WordPieceVocab": "vocab.txt",
    }
    by_name = {
        "source": Synthetic(num_documents=20),
        "sources": [Synthetic(num_documents=20)],
        "weights": [1.0],
        "tokenizer": ByteTokenizer(),
        "train_length": 32,
        "examples": SequenceExamples(["no", "yes"]),
        "labels": ["no", "yes"],
        "start": 0.1,
        "end": 0.2,
        "num_steps": 5,
        "rates": [0.1],
        "steps": [],
        "values": [8],
        "lengths": FixedSet([8]),
        "minimum": 2,
        "maximum": 64,
        "masking": TokenMasking(),
        "cache_dir": str(tmp_path / "cache"),
        "train": Table(str(folder / "labelled.jsonl")),
        "validation_documents": 5,
    }

    def arguments(cls: type) -> dict[str, object]:
        path = str(folder / files.get(cls.__name__, "a.txt"))
        known = by_name | {"path": path, "paths": path}
        if issubclass(cls, VariableLength):
            known["train_length"] = 64
        required = [one.name for one in inspect.signature(cls).parameters.values() if one.default is one.empty]
        extra = ["cache_dir", "train", "validation_documents", "tokenizer"]
        return {name: known[name] for name in parameters(cls) if name in required or name in extra}

    return arguments


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)  # a cache_dir "x" is one


def use(made: object) -> None:
    """Do what a run does with it."""
    if isinstance(made, TextSource):
        list(islice(made.documents(), 3))
        made.fingerprint()
        made.num_documents_hint()
    elif isinstance(made, Tokenizer):
        made.decode(made.encode_batch(["the fox", ""])[0])
        made.fingerprint()
    elif isinstance(made, RateMasking):
        rows = np.full((2, 8), 65)
        sample = np.full(8, 65, dtype=np.int32)
        rule = made.at(3).with_tokenizer(ByteTokenizer(), np.tile([65, 32], 8).astype(np.int32)[: len(sample)])
        rule.apply(rows, np.ones_like(rows), np.arange(2), 0, 0, ByteTokenizer().vocabulary)
    elif isinstance(made, RateSchedule):
        assert all(0 < made.at(step) <= 1 for step in (0, 7, 10**6, None))
    elif isinstance(made, Segmenter):
        assert "".join(made.split("机器学习人")) == "机器学习人"
    elif isinstance(made, RowMaker):
        made.plan(np.array([3, 80, 7]), 64, 8, 0).pieces(np.arange(2))
    elif isinstance(made, LengthDistribution):
        assert made.shares().sum() == pytest.approx(1)
        assert made.lengths().min() >= 1
    elif isinstance(made, Table):
        made.open()
    elif isinstance(made, TextDataModule | StreamingTextDataModule | LabelledTextDataModule):
        next(iter(made.train_dataloader()))
    else:
        assert isinstance(made, Examples), f"say in `use` what a run does with a {type(made).__name__}"


def message_of(error: ValueError) -> str:
    """Check that an error is one of ours, which the command line prints in one line."""
    module = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    assert module.split(".")[0] in ("datamodules", "gau_alpha"), f"{module} raises {error}"
    message = str(error)
    assert "\n" not in message
    assert len(message) < 7000
    return message


def outcome(action: Callable[[], object]) -> str | None:
    """Return the message, or None where it works; anything else is an error of the test."""
    try:
        action()
    except ValueError as error:
        return message_of(error)
    return None


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_of_every_class_works_or_is_refused(name: str, valid, recwarn):
    cls = CLASSES[name]
    arguments = valid(cls)
    use(cls(**arguments))  # else what follows shows nothing
    for parameter in parameters(cls):
        for label, value in WRONG.items():
            place = f"{name}({parameter}={label})"
            try:
                made = cls(**arguments | {parameter: value})
            except ValueError as error:
                if parameter not in message_of(error):
                    pytest.fail(f"{place}: {error}")
                continue
            except Exception as error:
                pytest.fail(f"{place}: {error!r}")
            try:
                outcome(lambda made=made: use(made))
            except Exception as error:
                pytest.fail(f"{place}, used: {error!r}")


def test_the_classes_are_those_that_a_user_can_name():
    assert len(CLASSES) >= 27
    assert {"Table", "WordList", "LinearRate", "Uniform", "StreamingTextDataModule", "Mixture"} <= CLASSES.keys()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Synthetic(seed=2**64), "seed=18446744073709551616 must be at most 18446744073709551615"),
        (lambda: Synthetic(length=10**9), "length=1000000000 must be at most 10000000"),
        (lambda: Synthetic(num_documents=1.0), r"num_documents=1\.0 must be an integer"),
        (lambda: Synthetic(num_documents=True), "num_documents=True must be an integer"),
        (lambda: Synthetic(num_documents=2**20000), "num_documents=<an integer of 20001 bits> must be at most"),
        (lambda: TokenMasking(rate="a lot"), r"rate='a lot' must lie in \(0, 1\]"),
        (lambda: TokenMasking(mask_fraction=float("nan")), "mask_fraction=nan and random_fraction=0.1 must be"),
        (lambda: LinearRate(0.1, None, 5), "end=None must lie in"),
        (lambda: Uniform(1, 10**7, 10**6), "num_lengths=1000000 must be at most 1024"),
        (lambda: FixedSet([8, 9], [1e308, 1e308]), "weights=.* must hold a positive number for each"),
        (lambda: Mixture(["a.txt"], [1]), r"sources\[0\]='a.txt' is a str, but must be a TextSource"),
        (lambda: TextFiles([3]), r"paths\[0\]=3 is a int, but must be a str \| pathlib.Path"),
        (lambda: TextFiles("~nobody-at-all/a"), r"paths\[0\]='~nobody-at-all/a' can't be looked for: .* home"),
        (lambda: TextFiles("a", encoding="undefined"), "encoding='undefined' is no encoding that Python knows"),
    ],
)
def test_what_is_wrong_is_said(make, message: str):
    with pytest.raises(ValueError, match=message) as error:
        make()
    message_of(error.value)


def test_numbers_of_numpy_are_numbers(tmp_path: Path):
    source = Synthetic(length=np.int64(96), num_documents=np.int32(20), seed=np.uint8(1))
    mixture = Mixture([source], [np.float32(2)], seed=np.int64(3))
    mixture.fingerprint()
    masking = TokenMasking(rate=np.float32(0.2), mask_fraction=np.float64(0.8))
    data = TextDataModule(
        mixture,
        ByteTokenizer(),
        np.int64(32),
        np.int64(4),
        masking,
        np.float32(0.1),
        np.int64(0),
        cache_dir=str(tmp_path / "cache"),
    )
    next(iter(data.train_dataloader()))


# JSON Lines

DEEP = b'{"text": "deep", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
LONG_NUMBER = b'{"text": "long", "x": ' + b"9" * 5000 + b"}\n"
GOOD = b'{"text": "good"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (DEEP, "lists or objects are nested too deeply"),
        (LONG_NUMBER, "an integer has more than 4300 digits"),
        (b'{"text": ' + b"[" * 100_000 + b"\n", "lists or objects are nested too deeply"),
    ],
    ids=["deep", "long number", "deep and cut"],
)
def test_json_that_python_does_not_read(tmp_path: Path, line: bytes, message: str):
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD + line + GOOD)
    with pytest.raises(ValueError, match=rf"a.jsonl, line 2: {message}.*, or leave such records out") as error:
        list(JsonLines(str(file)).documents())
    message_of(error.value)
    with pytest.warns(UserWarning, match=f"left out 1 records that can't be read: {message}"):
        assert list(JsonLines(str(file), on_bad_record="skip").documents()) == ["good", "good"]


def test_a_record_of_a_million_fields_is_named_in_a_line(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(json.dumps({f"field {number}": 0 for number in range(100_000)}))
    with pytest.raises(ValueError, match="line 1: no field 'text'") as error:
        list(JsonLines(str(tmp_path / "a.jsonl")).documents())
    assert len(message_of(error.value)) < 1000


# Damage

SOURCES = {"a.parquet": Parquet, "a.jsonl.gz": JsonLines, "a.jsonl.xz": JsonLines, "a.fa": Fasta}


def damaged(content: bytes) -> list[bytes]:
    """Cut a file, and change one byte of it, at many places; the same ones every time."""
    places = sorted(
        {*range(0, len(content), max(1, len(content) // 60)), *range(max(0, len(content) - 20), len(content))}
    )
    flipped = [content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :] for at in places]
    return [content[:at] for at in places] + flipped + [b"", content * 2, content[::-1]]


def survives(content: bytes, file: Path, read: Callable[[], object]) -> None:
    """Read every damaged version of a file: each works or is refused by its name, and some are refused."""
    messages = []
    for version in damaged(content):
        file.unlink(missing_ok=True)  # not written over: an earlier version may still be mapped
        file.write_bytes(version)
        messages.append(outcome(read))
    refused = [message for message in messages if message is not None]
    assert refused
    assert all(file.name in message or str(file.parent) in message for message in refused), refused


def test_a_damaged_parquet_file(tmp_path: Path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"document {number}" for number in range(300)], "n": range(300)}), file)
    source = Parquet(str(file))
    survives(file.read_bytes(), file, lambda: [source.num_documents_hint(), list(source.documents())])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([b"\xff"]), "column 'text' holds binary"),
        (pa.array([["one"]]), "column 'text' holds list"),
        (pa.array([{"a": 1}]), "column 'text' holds struct"),
        (pa.array([1]).dictionary_encode(), "column 'text' holds int64"),
        (pa.array([None]), "column 'text' holds null"),
    ],
)
def test_a_parquet_column_of_another_type(tmp_path: Path, column, message: str):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=f"a.parquet: {message}.*, but must hold strings"):
        list(Parquet(str(tmp_path / "a.parquet")).documents())


def test_a_parquet_column_of_bytes_that_are_no_text(tmp_path: Path):
    text = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff"))
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet is no whole Parquet file \(UnicodeDecodeError"):
        list(Parquet(str(tmp_path / "a.parquet")).documents())


def test_a_parquet_file_with_a_column_twice(tmp_path: Path):
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="several columns 'text'"):
        list(Parquet(str(tmp_path / "a.parquet")).documents())


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst"])
def test_a_damaged_compressed_file(tmp_path: Path, name: str):
    file = tmp_path / name
    with pa.output_stream(str(file), compression="zstd") if name.endswith("zst") else open_for_writing(file) as stream:
        stream.write(b"".join(b'{"text": "document %d"}\n' % (number * number) for number in range(200)))
    source = JsonLines(str(file))
    survives(file.read_bytes(), file, lambda: [source.num_documents_hint(), list(source.documents())])


def open_for_writing(file: Path):
    import lzma

    return gzip.open(file, "wb") if file.suffix == ".gz" else lzma.open(file, "wb")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_dataset_on_the_disk(folder: Path, tmp_path: Path, name: str, streaming: bool):
    saved = tmp_path / "saved"
    shutil.copytree(folder / "saved", saved)

    def read() -> None:
        source = HuggingFaceDataset(str(saved), streaming=streaming)
        source.fingerprint()
        list(source.documents())

    survives((saved / name).read_bytes(), saved / name, read)
    (saved / name).unlink()
    message = outcome(read)
    assert message is None or str(saved) in message


@pytest.mark.parametrize("state", ["[]", "null", "{}", '{"_data_files": 3}', "[" * 100_000, '{"_data_files": [{}]}'])
def test_a_dataset_whose_state_is_something_else(folder: Path, tmp_path: Path, state: str):
    saved = tmp_path / "saved"
    shutil.copytree(folder / "saved", saved)
    (saved / "state.json").write_text(state)
    for read in (lambda: list(HuggingFaceDataset(str(saved)).documents()), Table(str(saved)).open):
        message = outcome(read)
        assert message is not None
        assert str(saved) in message
        assert "can't be loaded" in message or "that can be loaded" in message


def test_pictures_are_not_opened_from_wherever_a_record_says(tmp_path: Path):
    records = datasets.Dataset.from_dict({"text": ["one"], "label": ["no"], "picture": [{"path": "/dev/null"}]})
    records = records.cast_column("picture", datasets.Image())
    records.save_to_disk(str(tmp_path / "saved"))
    assert sorted(Table(str(tmp_path / "saved")).open()[0]) == ["label", "text"]
    assert list(HuggingFaceDataset(str(tmp_path / "saved")).documents()) == ["one"]
    with pytest.raises(ValueError, match="column 'picture' holds Image, but must hold strings"):
        list(HuggingFaceDataset(str(tmp_path / "saved"), field="picture").documents())


@pytest.mark.parametrize("kind", ["pandas", "text", "webdataset"])
def test_a_kind_of_files_is_no_dataset(tmp_path: Path, monkeypatch, kind: str):
    """``datasets`` would read those of the working directory, and has unpickled some."""
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("private")
    with pytest.raises(ValueError, match=f"path='{kind}' is no folder .* OWNER/NAME"):
        list(HuggingFaceDataset(kind).documents())
    Path(kind).mkdir()
    (Path(kind) / "train.txt").write_text("mine")
    assert list(HuggingFaceDataset(kind).documents()) == ["mine"]
    assert Table(kind).open()["text"][:] == ["mine"]


# Tables

TABLES = {
    "empty.jsonl": b"",
    "list.jsonl": b"[1, 2]\n",
    "deep.jsonl": DEEP,
    "number.jsonl": LONG_NUMBER,
    "cut.jsonl": b'{"text": "one", "lab',
    "bytes.jsonl": b"\xff\xfe\x00",
    "NUL.csv": b"text,label\na\0,no\n",
    "ragged.csv": b"text,label\none,no,maybe,so\n",
    "quote.csv": b'text,label\n"one,no\n',
    "empty.csv": b"",
    "cut.parquet": b"PAR1",
    "nothing.txt": b"text",
    "a.csv.gz": b"no gzip",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_none(tmp_path: Path, name: str, recwarn):
    (tmp_path / name).write_bytes(TABLES[name])
    data = LabelledTextDataModule(
        SequenceExamples(["no", "yes"]), 8, Table(str(tmp_path / name)), tokenizer=ByteTokenizer()
    )
    message = outcome(lambda: next(iter(data.train_dataloader())))
    assert message is not None
    assert name in message


ODD = [None, 1.5, float("nan"), True, "", "x" * 100_000, [], [[]], {}, {"a": [None]}, -1, 2**62]


@pytest.mark.parametrize("name", [name for name, cls in CLASSES.items() if issubclass(cls, Examples)])
def test_values_of_any_kind_in_a_labelled_record(name: str, valid):
    examples = CLASSES[name](**valid(CLASSES[name]))
    right = {
        "MultipleChoiceExamples": {"text": "a", "text_pair": ["b", "c"], "label": 1},
        "QuestionAnsweringExamples": {
            "question": "a",
            "context": "abc",
            "answers": {"text": ["b"], "answer_start": [1]},
        },
        "SequenceExamples": {"text": "a", "label": "no"},
        "TokenExamples": {"text": ["a", "b"], "label": ["no", "yes"]},
    }[name]
    from datamodules.labelled.examples import LeftOutError
    from datamodules.labelled.frame import Frame

    def encode(record) -> None:
        with contextlib.suppress(LeftOutError):
            examples.encode(record, ByteTokenizer(), Frame(ByteTokenizer()), 8, True)

    assert outcome(lambda: encode(right)) is None
    answers = [{"text": text, "answer_start": start} for text in [*ODD, [None]] for start in [*ODD, [None], [0]]]
    for column in right:
        for value in [*ODD, *([one] for one in ODD), *([one, one] for one in ODD), *answers]:
            outcome(lambda column=column, value=value: encode({**right, column: value}))
        missing = {other: value for other, value in right.items() if other != column}
        assert outcome(lambda missing=missing: encode(missing)) is not None


# Tokenizers

TOKENS = {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "the": 3, "fox": 4}


def tokenizer_file(**changes) -> dict:
    plain = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"), None
    ) | {"version": "1.0", "added_tokens": []}
    plain["pre_tokenizer"] = {"type": "Whitespace"}
    model = {"type": "WordLevel", "vocab": TOKENS, "unk_token": "[UNK]"}
    return plain | {"model": model} | changes


def with_model(**changes) -> dict:
    return tokenizer_file(model=tokenizer_file()["model"] | changes)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ([], "is no tokenizer"),
        (None, "is no tokenizer"),
        ("[PAD] [MASK]", "is no tokenizer"),
        ({}, "is no tokenizer"),
        (tokenizer_file(model=None), "is no tokenizer"),
        (with_model(type="Magic"), "is no tokenizer"),
        (with_model(vocab=["[PAD]", "[MASK]"]), "is no tokenizer"),
        (with_model(vocab={"[PAD]": -1, "[MASK]": 2}), "is no tokenizer"),
        (with_model(vocab={"[PAD]": 1.5, "[MASK]": 2}), "is no tokenizer"),
        (with_model(vocab=TOKENS | {"far": 2**32}), "is no tokenizer"),
        (with_model(vocab=TOKENS | {"far": 10**7}), "has 6 tokens, but ids up to 10000000: .* Number the tokens"),
        (with_model(vocab={}), r"mask_token='\[MASK\]' is not in the vocabulary"),
        (with_model(vocab={"[PAD]": 0, "[MASK]": 1}), "no ordinary token"),
        (tokenizer_file(normalizer={"type": "Magic"}), "is no tokenizer"),
        (tokenizer_file(normalizer={"type": "Replace", "pattern": {"Regex": "(("}, "content": ""}), "is no tokenizer"),
        # over this the library panics, and not with an Exception
        (tokenizer_file(normalizer={"type": "Precompiled", "precompiled_charsmap": "x"}), r"is no .*PanicException"),
        # and this it accepts, until there is something to encode
        (with_model(unk_token="[NO]"), "is no tokenizer .* library"),
    ],
)
def test_a_tokenizer_file_that_is_none(tmp_path: Path, described, message: str):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=message) as error:
        TokenizerFile(str(file)).encode_batch(["a fox, héé 机"])
    assert "tokenizer.json" in message_of(error.value) or "no ordinary token" in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b'{"version": "1.0"'])
def test_a_tokenizer_file_that_is_no_json(tmp_path: Path, content: bytes):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer.json' is no tokenizer") as error:
        TokenizerFile(str(tmp_path / "tokenizer.json"))
    message_of(error.value)


def test_ids_may_have_some_gaps(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(with_model(vocab=TOKENS | {"far": 700})))
    assert TokenizerFile(str(tmp_path / "tokenizer.json")).vocabulary.size == 701


def test_a_damaged_tokenizer_file(folder: Path, tmp_path: Path):
    file = tmp_path / "tokenizer.json"
    survives((folder / "tokenizer.json").read_bytes(), file, lambda: use(TokenizerFile(str(file))))


@pytest.mark.parametrize("content", [b"", b"[PAD]\n\n[MASK]\n", b"[PAD]\n[PAD]\n", b"[PAD]\n\xff\n", b"[PAD]\n\0\n"])
def test_a_vocabulary_that_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"vocab.txt") as error:
        WordPieceVocab(str(tmp_path / "vocab.txt"))
    message_of(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no word"),
        (b"a\n", "holds no word"),
        (b"ab\n\xff\n", "words.txt is not utf-8"),
        (b"ab\0\n", "words.txt has a NUL"),
        (b"ab\n" + b"x" * 1_000_000, "words.txt, line 2: a word of 1000000 characters, more than 100"),
    ],
)
def test_a_word_list_that_is_none(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        WordList(str(tmp_path / "words.txt"))
    message_of(error.value)


@pytest.mark.parametrize(
    "content", [b"", b">", b"\n\n", b">one\n>two\n", b">one\n\xff\n", b"\0", b">one\rACGT\r", b";\n"]
)
def test_fasta_of_odd_kinds(tmp_path: Path, content: bytes):
    (tmp_path / "a.fa").write_bytes(content)
    message = outcome(lambda: tokenize(Fasta(str(tmp_path / "a.fa")), ByteTokenizer(), str(tmp_path / "cache")))
    assert message is not None


def test_utf_16_without_its_mark(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("text".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"a.txt is not utf-16: .*BOM") as error:
        list(TextFiles(str(tmp_path / "a.txt"), encoding="utf-16").documents())
    message_of(error.value)


# Caches


@pytest.fixture
def cached(tmp_path: Path, monkeypatch):
    """A cache of several chunks, and what reads it."""
    monkeypatch.setattr("datamodules.cache._BATCH_DOCUMENTS", 4)

    def read():
        return tokenize(Synthetic(num_documents=20), ByteTokenizer(), str(tmp_path / "cache"))

    return read().folder, read


@pytest.mark.filterwarnings("ignore:.* is no whole cache of tokens")
def test_a_damaged_cache(cached):
    """Each damaged version works or is made anew, the same either way where its lengths are whole."""
    folder, read = cached
    whole = read()
    lengths = whole.lengths.tolist()
    content, num_new = (folder / "documents.arrow").read_bytes(), 0
    for version in damaged(content):
        (folder / "documents.arrow").unlink()  # not written over: an earlier version may still be mapped
        (folder / "documents.arrow").write_bytes(version)
        documents = read()
        assert documents.lengths.tolist() == lengths
        assert [len(documents.document(number)) for number in range(len(documents))] == lengths
        num_new += (folder / "documents.arrow").read_bytes() == content
    assert num_new


def test_a_cache_that_is_cut_between_chunks(cached):
    folder, read = cached
    file = folder / "documents.arrow"
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        schema, batches = stream.schema, list(stream)
    assert len(batches) == 5
    with file.open("wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches[:-1]:
            writer.write_batch(batch)
    with pytest.warns(UserWarning, match=r"is no whole cache of tokens \(it is another number"):
        assert len(read()) == 20


def offsets_that_lie(column: pa.LargeListArray) -> pa.LargeListArray:
    offsets = column.offsets.to_numpy().copy()
    offsets[1] = 10**12
    return pa.LargeListArray.from_arrays(pa.array(offsets), column.values)


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (offsets_that_lie, "input_ids", "documents lie outside of the tokens"),
        (lambda column: column.cast(pa.large_list(pa.int64())), "input_ids", "it holds"),
        (lambda column: column, "ids", "it holds"),
        (lambda column: pa.array(["a"] * len(column)), "input_ids", "it holds"),
    ],
)
def test_a_cache_of_another_layout(cached, change, name: str, message: str):
    folder, read = cached
    file = folder / "documents.arrow"
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        batches = [[change(batch.column(0)), batch.column(1)] for batch in stream]
    schema = pa.schema({name: batches[0][0].type, "text_hash": pa.uint64()})
    with file.open("wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for columns in batches:
            writer.write_batch(pa.record_batch(columns, schema=schema))
    with pytest.warns(UserWarning, match=rf"{folder} is no whole cache of tokens \({message}"):
        assert len(read()) == 20


@pytest.mark.parametrize("name", ["documents.arrow", "about.json"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"[" * 100_000])
def test_a_cache_whose_files_are_gone_or_others(cached, name: str, content: bytes | None):
    folder, read = cached
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.warns(UserWarning, match=f"{folder} is no whole cache of tokens"):
        assert len(read()) == 20


def test_a_cache_that_is_another_users(cached, monkeypatch):
    """It can be neither read nor removed: one message with the folder."""
    folder, read = cached
    (folder / "about.json").write_text("{}")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)  # who runs the tests may be allowed everything
    with (
        pytest.warns(UserWarning, match="tokenised anew"),
        pytest.raises(
            ValueError, match=rf"{folder} is no whole cache .* can't be removed .*Permission denied.*cache_dir"
        ),
    ):
        read()


def test_a_full_disk_while_text_is_tokenised(tmp_path: Path):
    """A limit to the size of files stands in for the disk's: the same error, of another number."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(ValueError, match=r"cache_dir='.*cache' has no room for the tokens .* Free some") as error:
            tokenize(Synthetic(num_documents=2000), ByteTokenizer(), str(tmp_path / "cache"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    message_of(error.value)
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(tokenize(Synthetic(num_documents=2000), ByteTokenizer(), str(tmp_path / "cache"))) == 2000


def test_a_cache_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"cache_dir='.*file.*' can't be written .* Set `cache_dir`") as error:
            tokenize(Synthetic(), ByteTokenizer(), str(place))
        message_of(error.value)


def test_a_cache_folder_without_permission(tmp_path: Path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # who runs the tests may be allowed everything
    with pytest.raises(ValueError, match=r"cache_dir='.*cache' can't be written .*Permission denied"):
        tokenize(Synthetic(), ByteTokenizer(), str(tmp_path / "cache"))


def test_the_default_folder_is_the_users_own(tmp_path: Path, monkeypatch):
    """Texts may be private. Folders that are there, or that the user names, are left as they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    old = os.umask(0o022)
    try:
        default = tokenize(Synthetic(), ByteTokenizer()).folder.parent
        named = tokenize(Synthetic(), ByteTokenizer(), str(tmp_path / "named")).folder.parent
        assert stat.S_IMODE(default.stat().st_mode) == 0o700
        assert stat.S_IMODE(named.stat().st_mode) == 0o755
        default.chmod(0o750)
        tokenize(Synthetic(seed=1), ByteTokenizer())
        assert stat.S_IMODE(default.stat().st_mode) == 0o750
    finally:
        os.umask(old)


# Positions in checkpoints


def loaders(tmp_path: Path) -> list:
    source, tokenizer = Synthetic(num_documents=60), ByteTokenizer()
    return [
        TextDataModule(source, tokenizer, 32, 4, cache_dir=str(tmp_path / "cache")).train_dataloader(),
        StreamingTextDataModule(source, tokenizer, 32, 4, validation_documents=5, window=8).train_dataloader(),
    ]


def test_positions_of_any_kind(tmp_path: Path):
    for loader in loaders(tmp_path):
        list(islice(loader, 2))
        right = json.loads(json.dumps(loader.state_dict()))
        assert right["batches"] == 2
        assert outcome(lambda loader=loader, right=right: loader.load_state_dict(right)) is None
        for wrong in ({}, [], None, 3):
            assert outcome(lambda loader=loader, wrong=wrong: loader.load_state_dict(wrong)) is not None
        for name in right:
            for value in WRONG.values():
                state = {**right, name: value}
                outcome(lambda loader=loader, state=state: (loader.load_state_dict(state), next(iter(loader), None)))
            state = {other: value for other, value in right.items() if other != name}
            assert outcome(lambda loader=loader, state=state: loader.load_state_dict(state)) is not None


# Rows


def test_packing_needs_no_memory_for_rows_longer_than_any_document(tmp_path: Path):
    from datamodules.rows.packed import best_fit

    assert best_fit(np.array([3, 5, 2]), 10**12).tolist() == [0, 0, 0]
    assert best_fit(np.array([], dtype=np.int64), 8).tolist() == []


def test_no_ids_beyond_the_vocabulary_come_from_a_tokenizer(folder: Path):
    for tokenizer in (TokenizerFile(str(folder / "tokenizer.json")), WordPieceVocab(str(folder / "vocab.txt"))):
        (ids,) = tokenizer.encode_batch(["the fox [MASK] é"])
        assert ids.max() < tokenizer.vocabulary.size
