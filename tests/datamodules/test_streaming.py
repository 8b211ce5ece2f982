"""Streams: every document once, whatever the ranks, lanes, workers and files; resumable at any batch."""

import json
import multiprocessing
from pathlib import Path

import lightning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from batches import read
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import (
    Blocks,
    ByteTokenizer,
    HuggingFaceDataset,
    JsonLines,
    Mixture,
    Packed,
    Parquet,
    StreamingTextDataModule,
    Synthetic,
    TextDataModule,
    TextFiles,
    TokenMasking,
    VariableLength,
)
from datamodules.masking import LinearRate
from datamodules.rows import FixedSet
from datamodules.split import Split, text_hash
from datamodules.streaming.lanes import Lane, Place, Stream


def lines(num_documents: int) -> list[str]:
    """Documents of 0 to 60 letters, each with its number in front."""
    return [f"<{number}>" + "x" * (number * 7 % 60) for number in range(num_documents)]


def in_files(folder: Path, num_files: int, kind: str):
    texts = lines(103)
    for file in range(num_files):
        share = texts[file::num_files]
        if kind == "text":
            (folder / f"{file}.txt").write_text("\n".join(share))
        elif kind == "json":
            (folder / f"{file}.txt").write_text("".join(json.dumps({"text": text}) + "\n" for text in share))
        else:
            pq.write_table(pa.table({"text": share}), folder / f"{file}.txt")
    path = str(folder / "*.txt")
    return {
        "text": lambda: TextFiles(path, per_line=True),
        "json": lambda: JsonLines(path),
        "parquet": lambda: Parquet(path),
    }[kind]()


def make(source, **changes) -> StreamingTextDataModule:
    arguments = {"train_length": 16, "batch_size": 4, "validation_documents": 5, "window": 8, "lanes": 3}
    return StreamingTextDataModule(source, ByteTokenizer(), **(arguments | changes))


def texts_of(batches) -> list[str]:
    """The pieces in batches, masking undone, padding left out."""
    pieces = []
    for batch in batches:
        ids = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
        segments = batch.get("segment_ids", batch["attention_mask"])
        for row, segment in zip(ids, segments, strict=True):
            pieces += [bytes(row[segment == number].tolist()).decode() for number in range(1, int(segment.max()) + 1)]
    return pieces


def trained_on(texts: list[str]) -> list[str]:
    return [text for text, out in zip(texts, Split().is_below(texts), strict=True) if not out]


def expected(texts: list[str]) -> list[str]:
    return sorted(text[start : start + 16] for text in texts for start in range(0, len(text), 16))


@pytest.mark.parametrize("rows", [Blocks(), Packed()], ids=["blocks", "packed"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("num_files", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["text", "json", "parquet"])
def test_every_document_once(tmp_path: Path, kind: str, num_files: int, workers: int, rows):
    source = in_files(tmp_path, num_files, kind)
    loader = make(source, num_workers=workers, rows=rows).train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert sorted(texts_of(batches)) == expected(trained_on(list(source.documents())))
        samples = torch.cat([batch["sample_ids"] for batch in batches]).tolist()
        assert len(samples) == len(set(samples))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_lanes_of_all_ranks_share_the_documents(tmp_path: Path, world: int):
    source = in_files(tmp_path, 2, "json")
    stream = Stream(source, ByteTokenizer(), Blocks(), TokenMasking(), 16, 4, 0, Split(), 8, num_lanes=world * 2)
    masked = {}
    batches = []
    for number in range(world * 2):
        lane = Lane(stream, 0, number, Place())
        while not Place(*(answer := lane.next(0))["place"].tolist()).is_end:
            batches.append(answer["batch"])
            for sample, ids in zip(answer["batch"]["sample_ids"].tolist(), answer["batch"]["input_ids"], strict=True):
                masked[sample] = ids.tolist()
    assert sorted(texts_of(batches)) == expected(trained_on(list(source.documents())))
    # the masks of a row do not depend on how many lanes there are
    alone = {}
    lane = Lane(Stream(source, ByteTokenizer(), Blocks(), TokenMasking(), 16, 4, 0, Split(), 8, 1), 0, 0, Place())
    while not Place(*(answer := lane.next(0))["place"].tolist()).is_end:
        for sample, ids in zip(answer["batch"]["sample_ids"].tolist(), answer["batch"]["input_ids"], strict=True):
            alone[sample] = ids.tolist()
    assert masked == alone


@pytest.mark.slow
def test_workers_change_nothing_and_epochs_and_seeds_do():
    source = Synthetic("copy", distance=7, length=40, num_documents=60)
    straight = read(make(source).train_dataloader())
    for workers in (1, 2, 3):  # 2 does not divide the 3 lanes
        assert read(make(source, num_workers=workers).train_dataloader()) == straight
    loader = make(source).train_dataloader()
    loader.sampler.set_epoch(1)
    second = read(loader)
    assert second != straight
    assert read(make(source, seed=1).train_dataloader()) != straight
    by_sample = [
        {sample: ids for batch in batches for sample, ids in zip(batch["sample_ids"], batch["input_ids"], strict=True)}
        for batches in (straight, second)
    ]
    assert by_sample[0].keys() == by_sample[1].keys()
    assert sum(by_sample[0][sample] != by_sample[1][sample] for sample in by_sample[0]) > 0.8 * len(by_sample[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(0, 0), (0, 2), (2, 1)])
@pytest.mark.parametrize("rows", [Blocks(), Packed()], ids=["blocks", "packed"])
def test_stop_and_resume_anywhere(tmp_path: Path, workers, rows):
    source = in_files(tmp_path, 3, "text")

    def loader(num_workers: int):
        masking = TokenMasking(LinearRate(0.9, 0.1, 60))
        return make(
            source, rows=rows, num_workers=num_workers, batch_size=2, window=7, masking=masking
        ).train_dataloader()

    straight = loader(workers[0])
    first = read(straight)
    straight.sampler.set_epoch(1)
    second = read(straight)
    assert len(first) >= 40

    begun = loader(workers[0])
    assert read(begun, 10) == first[:10]
    middle = loader(workers[1])
    middle.load_state_dict(begun.state_dict())
    assert read(middle, 10) == first[10:20]
    last = loader(workers[0])
    last.load_state_dict(json.loads(json.dumps(middle.state_dict())))  # plain data
    assert read(last) == first[20:]
    last.sampler.set_epoch(1)
    assert read(last) == second

    near_the_end = loader(workers[0])
    read(near_the_end, len(first) - 1)
    resumed = loader(workers[1])
    resumed.load_state_dict(near_the_end.state_dict())
    assert read(resumed) == first[-1:]


def test_resuming_does_not_tokenise_what_came_before(tmp_path: Path):
    class Counting(ByteTokenizer):
        count = 0

        def encode_batch(self, texts):
            Counting.count += len(texts)
            return super().encode_batch(texts)

    def loader():
        source = Synthetic("copy", distance=7, length=16, num_documents=805)
        return StreamingTextDataModule(
            source, Counting(), 16, 4, validation_documents=5, window=8, lanes=2
        ).train_dataloader()

    begun = loader()
    batches = iter(begun)
    for _ in range(160):
        next(batches)
    state = begun.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    Counting.count = 0
    next(iter(resumed))
    assert Counting.count <= 2 * 8


class Recorder(lightning.LightningModule):
    """Writes down every training batch it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list = []
        self.num_validation = 0

    def training_step(self, batch, batch_idx):
        self.seen.append(tuple(batch[name].tolist() for name in ("sample_ids", "input_ids", "labels")))
        return self.layer(torch.ones(1)).sum()

    def validation_step(self, batch, batch_idx):
        self.num_validation += len(batch["sample_ids"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(0, 0), (0, 2), (2, 0)])
def test_lightning_resumes_inside_and_between_epochs(tmp_path: Path, workers):
    """Lightning fetches a batch ahead of a loader without a length; the checkpoint must not count it."""
    source = Synthetic("copy", distance=7, length=32, num_documents=45)

    def run(steps: int, num_workers: int, ckpt_path: Path | None = None) -> Recorder:
        recorder = Recorder()
        lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            num_sanity_val_steps=0,
            callbacks=[
                ModelCheckpoint(
                    tmp_path / "checkpoints",
                    "{step}",
                    every_n_train_steps=1,
                    save_top_k=-1,
                    enable_version_counter=False,
                )
            ],
        ).fit(recorder, datamodule=make(source, num_workers=num_workers), ckpt_path=ckpt_path, weights_only=True)
        return recorder

    whole = run(60, workers[0])
    assert len(whole.seen) == 60
    assert whole.num_validation >= 10
    in_epoch = len(list(make(source).train_dataloader()))
    assert in_epoch < 30
    for cut in (10, in_epoch - 1, in_epoch, in_epoch + 1):
        resumed = run(60, workers[1], tmp_path / f"checkpoints/step={cut}.ckpt")
        assert [whole.seen.index(one) for one in resumed.seen] == list(range(cut, 60))


def _rank(rank: int, world: int, folder: Path, num_documents: int, resume: bool, results) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/group{resume}", rank=rank, world_size=world)
    data = make(Synthetic("copy", distance=7, length=32, num_documents=num_documents))
    loader = data.train_dataloader()
    if resume:
        loader.load_state_dict(json.loads((folder / "state").read_text()))
    batches = []
    for batch in loader:
        batches.append({name: tensor.tolist() for name, tensor in batch.items()})
        if len(batches) == 4 and not resume and rank == 0:
            (folder / "state").write_text(json.dumps(loader.state_dict()))  # what rank 0 knows is enough
    results.put((rank, batches))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_step_together_and_resume_from_the_state_of_rank_0(tmp_path: Path):
    context = multiprocessing.get_context("fork")

    def run(resume: bool):
        results = context.Queue()
        processes = [context.Process(target=_rank, args=(rank, 2, tmp_path, 52, resume, results)) for rank in range(2)]
        for process in processes:
            process.start()
        found = dict(results.get(timeout=60) for _ in processes)
        for process in processes:
            process.join()
        return found[0], found[1]

    straight = run(resume=False)
    assert len(straight[0]) == len(straight[1]) > 6
    samples = [sample for batches in straight for batch in batches for sample in batch["sample_ids"] if sample >= 0]
    texts = trained_on(list(Synthetic("copy", distance=7, length=32, num_documents=52).documents()))
    assert len(samples) == len(set(samples)) == len(texts) * 2
    resumed = run(resume=True)
    assert resumed == (straight[0][4:], straight[1][4:])


def test_documents_are_held_out_by_their_text_and_never_trained_on(tmp_path: Path):
    source = Mixture([Synthetic("recall", 6, 32, 50), Synthetic("copy", 6, 32, 50)], [1, 1])
    data = make(source, train_length=32)
    documents = list(source.documents())
    held_out = [text for text in documents if text not in trained_on(documents)][:5]
    evaluated = [bytes(document.tolist()).decode() for document in data.evaluation_documents()]
    assert sorted(evaluated) == sorted(held_out)
    places = Split().places(np.array([text_hash(text) for text in evaluated], dtype=np.uint64)).tolist()
    assert places == sorted(places), "in the order of their places"
    assert sorted(texts_of(data.val_dataloader())) == sorted(held_out)
    assert sorted(texts_of(data.train_dataloader())) == sorted(trained_on(documents))
    # whatever reads the corpus, and whatever its order and copies
    cached = TextDataModule(source, ByteTokenizer(), 32, cache_dir=str(tmp_path / "cache"))
    mapped = [bytes(document.tolist()).decode() for document in cached.evaluation_documents()]
    assert set(evaluated) < set(mapped) <= set(documents) - set(trained_on(documents))


@pytest.mark.slow
def test_a_streamed_dataset(tmp_path: Path):
    pq.write_table(pa.table({"text": lines(60)}), tmp_path / "train.parquet")
    source = HuggingFaceDataset(str(tmp_path), streaming=True)
    assert sorted(texts_of(make(source, num_workers=1).train_dataloader())) == expected(trained_on(lines(60)))


def test_blank_documents_make_no_row(tmp_path: Path):
    texts = [text if number % 3 else "  \n" for number, text in enumerate(lines(80))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    loader = make(JsonLines(str(tmp_path)), window=1).train_dataloader()
    assert sorted(texts_of(loader)) == expected([text for text in trained_on(texts) if text.strip()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lanes": 0}, "lanes=0 must be at least 1"),
        ({"window": 0}, "window=0 must be at least 1"),
        ({"validation_documents": 0}, "validation_documents=0 must be at least 1"),
        ({"rows": VariableLength(FixedSet([8]))}, "can't be streamed"),
    ],
)
def test_bad_arguments(changes, message: str):
    with pytest.raises(ValueError, match=message):
        make(Synthetic(), **changes)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_record_is_named_from_any_process(tmp_path: Path, workers: int):
    texts = [json.dumps({"text": text if number != 50 else 5}) + "\n" for number, text in enumerate(lines(60))]
    (tmp_path / "a.jsonl").write_text("".join(texts))
    loader = make(JsonLines(str(tmp_path)), num_workers=workers).train_dataloader()
    with pytest.raises(ValueError, match=r"a\.jsonl, line 51: field 'text' holds a int") as refusal:
        list(loader)
    assert "Traceback" not in str(refusal.value)


def _rank_with_a_bad_text(rank: int, folder: Path, results) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=2)
    texts = [json.dumps({"text": text if number != 51 or rank == 0 else 5}) for number, text in enumerate(lines(60))]
    (folder / f"{rank}.jsonl").write_text("\n".join(texts))
    try:
        data = make(JsonLines(str(folder / f"{rank}.jsonl")), validation_documents=1, validation_fraction=0.3)
        list(data.train_dataloader())
    except ValueError as error:
        results.put((rank, str(error)))


@pytest.mark.slow
def test_a_rank_that_cant_read_leaves_none_waiting(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_rank_with_a_bad_text, args=(rank, tmp_path, results)) for rank in range(2)]
    for process in processes:
        process.start()
    messages = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert "line 52" in messages[1]  # whose lane has document 51
    assert messages[0] == "Rank 1 can't read its text: see its message."


def test_a_stream_too_short(tmp_path: Path):
    source = Synthetic(num_documents=5)
    for fraction, lacking in ((0.0001, "held out"), (0.9999, "left to train on")):
        with pytest.raises(ValueError, match=f"Of the 5 documents of the stream none that holds text is {lacking}"):
            make(source, validation_fraction=fraction).setup()
    (tmp_path / "a.txt").write_text(" ")
    with pytest.raises(ValueError, match="Of the 1 documents"):
        make(TextFiles(str(tmp_path))).setup()


def test_another_stream_inside_an_epoch_is_an_error():
    source = Synthetic("copy", distance=7, length=40, num_documents=60)
    begun = make(source).train_dataloader()
    next(iter(begun))
    for changes in ({"lanes": 2}, {"window": 9}, {"batch_size": 5}, {"seed": 3}, {"split_seed": 3}):
        with pytest.raises(ValueError, match=rf"inside an epoch of a stream with {next(iter(changes))}="):
            make(source, **changes).train_dataloader().load_state_dict(begun.state_dict())
