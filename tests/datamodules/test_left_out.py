"""What is left out is told at every start, and what is asked for of a dataset is what is read."""

import gzip
import io
import json
import sys
import warnings
from pathlib import Path

import datasets
import pytest

from datamodules import ByteTokenizer, Fasta, HuggingFaceDataset, JsonLines, StandardInput, TextDataModule, TextFiles


def starts(tmp_path: Path, source) -> list[list[str]]:
    """What two starts with one cache say, the second of which finds it finished."""
    said = []
    for _ in range(2):
        data = TextDataModule(source, ByteTokenizer(), 8, cache_dir=str(tmp_path / "cache"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.prepare_data()
            data.setup("fit")
        said.append([str(one.message) for one in caught if "left out" in str(one.message)])
    return said


@pytest.mark.slow
def test_what_a_cache_left_out_is_told_at_every_start(tmp_path: Path):
    records = [{"text": f"text number {number}"} for number in range(20)] + [{"text": None}, {"text": 3}, {"text": 4}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    fresh, again = starts(tmp_path, JsonLines(str(tmp_path / "a.jsonl"), on_bad_record="skip"))
    assert len(fresh) == 2
    assert any("left out 2 records whose field holds a int" in line for line in fresh)
    assert again == fresh


@pytest.mark.slow
def test_blank_lines_of_text_files_are_counted(tmp_path: Path):
    (tmp_path / "a.txt").write_text("".join(f"line {number}\n\n" for number in range(20)))
    source = TextFiles(str(tmp_path / "a.txt"), per_line=True)
    assert len(list(source.documents())) == 20
    assert source.left_out == ["TextFiles: left out 20 blank lines."]
    _, again = starts(tmp_path, source)
    assert again == ["TextFiles: left out 20 blank lines."]


def test_document_n_of_standard_input_is_line_n(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\n \nbc\r\n")))
    source = StandardInput()
    assert list(source.documents()) == ["a", "", " ", "bc"]
    data = TextDataModule(source, ByteTokenizer(), 8, cache_dir=str(tmp_path / "cache"))
    (batch,) = data.predict_dataloader()
    assert batch["sample_ids"].tolist() == [0, 1, 2, 3]
    assert batch["attention_mask"].sum(1).tolist() == [1, 0, 0, 2]


def texts_of(folder: Path, split: str, **more) -> list[str]:
    return list(HuggingFaceDataset(str(folder), split=split, **more).documents())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_part_of_a_saved_dataset(tmp_path: Path, streaming: bool):
    texts = [f"text {number}" for number in range(100)]
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(folder))
    assert texts_of(folder, "train", streaming=streaming) == texts
    assert texts_of(folder, "train[:10%]", streaming=streaming) == texts[:10]
    assert texts_of(folder, "train[90:]+train[:2]", streaming=streaming) == texts[90:] + texts[:2]
    for split in ("test", "validation[:5]", "train[:bad]"):
        with pytest.raises(ValueError, match=r"one split 'train', and split=.* is no part of it"):
            texts_of(folder, split, streaming=streaming)
    hashes = {HuggingFaceDataset(str(folder), split=split).fingerprint() for split in ("train", "train[:10%]")}
    assert len(hashes) == 2


def test_a_saved_dataset_of_another_split(tmp_path: Path):
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["a"] * 10}, split="validation").save_to_disk(str(folder))
    assert len(texts_of(folder, "validation")) == 10
    with pytest.raises(ValueError, match=r"one split 'validation', and split='train' is no part of it"):
        texts_of(folder, "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_field_that_is_null_in_the_whole_first_file(tmp_path: Path, streaming: bool):
    folder = tmp_path / "nulls"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"text": None, "number": 1}) + "\n")
    rest = [{"text": f"text {number}", "number": number} for number in range(5)]
    (folder / "b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in rest))
    source = HuggingFaceDataset(str(folder), on_bad_record="skip", streaming=streaming)
    with pytest.warns(UserWarning, match="left out 1 records whose field holds a NoneType"):
        assert list(source.documents()) == [record["text"] for record in rest]
    with pytest.raises(ValueError, match="record 0: field 'text' holds a NoneType"):
        list(HuggingFaceDataset(str(folder), streaming=streaming).documents())


@pytest.mark.parametrize(
    ("name", "make", "place"),
    [
        ("a.jsonl.gz", JsonLines, ", line 2"),
        ("a.txt.gz", lambda path, **more: TextFiles(path, per_line=True, **more), ", line 2"),
        ("a.txt.gz", TextFiles, ""),
        ("a.fa.gz", Fasta, ", line 2"),
    ],
)
def test_a_line_has_a_limit_that_one_can_raise(tmp_path: Path, name: str, make, place: str):
    """A small file may unpack to a line that fills the memory: it is refused before it is all there."""
    first, long = {"a.jsonl.gz": (b'{"text": "a"}', b'{"text": "%s"}')}.get(name, (b">a", b"%s"))
    file = tmp_path / name
    file.write_bytes(gzip.compress(first + b"\n" + long % (b"A" * 5_000_000) + b"\n"))
    with pytest.raises(ValueError, match=rf"{name}{place}: more than max_characters=3000000.* Raise it"):
        list(make(str(file), max_characters=3_000_000).documents())
    assert sum(map(len, make(str(file), max_characters=6_000_000).documents())) >= 5_000_000
