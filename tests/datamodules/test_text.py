import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

from datamodules import ByteTokenizer, JsonLines, TextDataModule, TextFiles, TokenizerFile, TokenMasking
from datamodules.dataset import NO_SAMPLE, MaskedRows
from datamodules.sampling import EpochSampler, Request


def batches_of(loader) -> list[dict[str, torch.Tensor]]:
    return list(loader)


def assert_same(first, second) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def by_sample(batches) -> dict[int, tuple[list[int], list[int]]]:
    """The masked row and its labels for every sample."""
    rows = {}
    for batch in batches:
        columns = (batch[name].tolist() for name in ("sample_ids", "input_ids", "labels"))
        for sample, ids, labels in zip(*columns, strict=True):
            assert sample not in rows
            rows[sample] = ids, labels
    return rows


@pytest.mark.slow
def test_batches_have_the_promised_form(make_data):
    data = make_data()
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batches = batches_of(loader)
        assert len(batches) == len(loader) > 1
        for batch in batches:
            assert list(batch) == ["input_ids", "attention_mask", "labels", "sample_ids"]
            assert all(tensor.dtype == torch.int64 for tensor in batch.values())
            size = len(batch["sample_ids"])
            assert all(batch[name].shape == (size, 32) for name in ("input_ids", "attention_mask", "labels"))
        assert {len(batch["sample_ids"]) for batch in batches[:-1]} == {8}


def test_rows_put_together_are_the_corpus(make_data, corpus: Path):
    """Labels undo the masking: every byte of every document is in exactly one row of one split."""
    data = make_data()
    rows = []
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in batches_of(loader):
            original = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
            assert (original[batch["attention_mask"] == 0] == data.vocabulary.pad_id).all()
            assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
            rows += [
                bytes(ids[mask.bool()].tolist()) for ids, mask in zip(original, batch["attention_mask"], strict=True)
            ]
    texts = [file.read_bytes() for file in sorted(corpus.iterdir())]
    expected = [text[start : start + 32] for text in texts for start in range(0, len(text), 32)]
    assert sorted(rows) == sorted(expected)


@pytest.mark.slow
def test_two_workers_make_the_batches_of_none(make_data):
    alone, helped = make_data(), make_data(num_workers=2)
    train_alone, train_helped = alone.train_dataloader(), helped.train_dataloader()
    for epoch in range(2):
        train_alone.sampler.set_epoch(epoch)
        train_helped.sampler.set_epoch(epoch)
        assert_same(batches_of(train_alone), batches_of(train_helped))
    assert_same(batches_of(alone.val_dataloader()), batches_of(helped.val_dataloader()))


def test_training_masks_and_order_change_with_the_epoch(make_data):
    loader = make_data().train_dataloader()
    first = batches_of(loader)
    assert_same(first, batches_of(make_data().train_dataloader()))
    loader.sampler.set_epoch(1)
    second = batches_of(loader)
    assert [batch["sample_ids"].tolist() for batch in first] != [batch["sample_ids"].tolist() for batch in second]
    first_rows, second_rows = by_sample(first), by_sample(second)
    assert first_rows.keys() == second_rows.keys()
    changed = [first_rows[sample] != second_rows[sample] for sample in first_rows]
    assert sum(changed) / len(changed) > 0.95


def test_validation_is_the_same_every_time(make_data):
    loader = make_data().val_dataloader()
    first = batches_of(loader)
    loader.sampler.set_epoch(7)
    assert_same(first, batches_of(loader))
    samples = torch.cat([batch["sample_ids"] for batch in first]).tolist()
    assert sorted(samples) == list(range(len(loader.dataset)))
    assert samples != sorted(samples), "shuffled, so that the first batches are a fair sample"


def test_masks_do_not_depend_on_the_batch_size(make_data):
    assert by_sample(make_data(batch_size=5).train_dataloader()) == by_sample(make_data().train_dataloader())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_masks_do_not_depend_on_the_ranks(make_data, world: int):
    expected = by_sample(make_data().train_dataloader())
    rows = make_data().train_dataloader().dataset
    dealt = [rows[request] for rank in range(world) for request in EpochSampler(rows.plan.groups, 8, 0, world, rank)]
    assert by_sample(dealt) == expected


def test_a_rank_without_rows_gets_padding_without_targets(make_data):
    data = make_data()
    rows: MaskedRows = data.train_dataloader().dataset
    batch = rows[Request(0, np.array([], dtype=np.int64), 32)]
    assert batch["sample_ids"].tolist() == [NO_SAMPLE]
    assert batch["input_ids"].tolist() == [[data.vocabulary.pad_id] * 32]
    assert batch["attention_mask"].sum() == 0
    assert (batch["labels"] == -100).all()


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loading_leaves_the_global_random_state_alone(make_data, num_workers: int):
    data = make_data(num_workers=num_workers)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what is tested
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches_of(data.train_dataloader())
    batches_of(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002


@pytest.mark.slow
def test_split_is_by_document_whatever_shapes_rows(make_data, corpus: Path):
    texts = {file.read_bytes() for file in corpus.iterdir()} - {b""}

    def validation(**changes) -> list[bytes]:
        return [bytes(document.tolist()) for document in make_data(**changes).evaluation_documents()]

    documents = validation()
    assert len(documents) == 4  # of the 39 that are not empty
    assert set(documents) < texts
    assert documents == validation(batch_size=3, train_length=16, num_workers=1, masking=TokenMasking(rate=0.5), seed=1)
    assert set(documents) != set(validation(split_seed=1))
    assert 14 < len(validation(validation_fraction=0.5)) < 26
    assert len(validation(validation_fraction=0.001)) == 1
    assert len(validation(validation_fraction=0.999)) == 38


def test_evaluation_documents_are_whole_and_indexable(make_data, corpus: Path):
    documents = make_data(validation_fraction=0.5).evaluation_documents()
    assert max(map(len, documents)) > 5 * 32
    assert all(document.dtype == np.int64 and document.ndim == 1 for document in documents)
    torch.from_numpy(documents[0])[0] = 1  # a copy: writing does not reach the cache
    assert [document.tolist() for document in documents[2:5]] == [documents[i].tolist() for i in (2, 3, 4)]
    assert documents[-1].tolist() == documents[len(documents) - 1].tolist()
    with pytest.raises(IndexError):
        documents[len(documents)]


def test_works_with_a_tokenizer_file_and_json_lines(make_data, tmp_path: Path, tokenizer_file):
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": f"the [MASK] quick fox {i} " * 9}) + "\n" for i in range(20)))
    data = make_data(source=JsonLines(str(file)), tokenizer=TokenizerFile(tokenizer_file("WordPiece")), train_length=8)
    assert data.vocabulary == data.tokenizer.vocabulary
    num_masks = num_targets = 0
    for batch in batches_of(data.train_dataloader()):
        target = batch["labels"] != -100
        num_masks += int((batch["input_ids"] == data.vocabulary.mask_id).sum())
        num_targets += int(target.sum())
        assert not (batch["input_ids"] == data.vocabulary.mask_id)[~target].any()  # only masking makes masks
    assert 0.6 < num_masks / num_targets < 0.95


def test_spawned_workers_can_have_the_rows(make_data):
    rows = make_data().train_dataloader().dataset
    copy = pickle.loads(pickle.dumps(rows))
    request = Request(0, np.array([3, 1]), 32)
    assert_same([rows[request]], [copy[request]])


def test_vocabulary_is_there_before_any_data(tmp_path: Path):
    data = TextDataModule(TextFiles(str(tmp_path / "missing")), ByteTokenizer(), train_length=8)
    assert data.vocabulary.size == 258
    assert data.train_length == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_length": 0}, "train_length=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"num_workers": -1}, "num_workers=-1 must be at least 0"),
        ({"validation_fraction": 0.0}, r"validation_fraction=0.0 must lie between"),
        ({"validation_fraction": 1.0}, r"validation_fraction=1.0 must lie between"),
        ({"validation_fraction": 10}, r"validation_fraction=10 must lie between"),
    ],
)
def test_bad_arguments(make_data, changes, message: str):
    with pytest.raises(ValueError, match=message):
        make_data(**changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["too", "short"], "train_length=32, but the whole corpus has 8 tokens"),
        (["one document that is long enough for one row", ""], "has 1 document that is not empty"),
        (["", ""], "yields 2 documents and no text"),
    ],
)
def test_corpus_too_small(make_data, tmp_path: Path, texts: list[str], message: str):
    folder = tmp_path / "small"
    folder.mkdir()
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text)
    data = make_data(source=TextFiles(str(folder)))
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_configurable_by_class_path(corpus: Path, monkeypatch, capsys):
    """Defaults, nested classes by path, and help from the docstrings, through LightningCLI itself."""

    def parse(*more: str) -> LightningCLI:
        arguments = [
            "--data=datamodules.TextDataModule",
            "--data.source=datamodules.TextFiles",
            f"--data.source.paths={corpus}",
            "--data.tokenizer=datamodules.ByteTokenizer",
            "--data.train_length=32",
            *more,
        ]
        monkeypatch.setattr("sys.argv", ["gau-alpha"])
        return LightningCLI(LightningModule, LightningDataModule, subclass_mode_data=True, run=False, args=arguments)

    cli = parse()
    assert isinstance(cli.datamodule.source, TextFiles)
    assert cli.datamodule.masking == TokenMasking()
    assert "class_path: datamodules.TokenMasking" in cli.parser.dump(cli.config)

    cli = parse("--data.masking.rate=0.3", f'--data.source.paths=["{corpus}"]')
    assert cli.datamodule.masking == TokenMasking(rate=0.3)
    assert cli.datamodule.source.paths == [str(corpus)]

    for name, text in (
        ("data.help=datamodules.TextDataModule", "Tokens per training row"),
        ("data.masking.help=datamodules.TokenMasking", "Share of tokens to predict"),
        ("data.source.help=datamodules.JsonLines", "Name of the field that holds the text"),
        ("data.tokenizer.help=datamodules.TokenizerFile", "Name of the token that fills rows"),
    ):
        with pytest.raises(SystemExit):
            parse(f"--{name}")
        assert text in " ".join(capsys.readouterr().out.split())
