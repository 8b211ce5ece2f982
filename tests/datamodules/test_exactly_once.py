"""Ranks x workers x files: every sample exactly once per epoch, with masks of its own, in memory and streamed.

Ranks are real processes in a gloo group, workers are the loader's own.
"""

import json
import multiprocessing
from itertools import product
from pathlib import Path

import pytest
import torch.distributed as dist

from datamodules import ByteTokenizer, JsonLines, StreamingTextDataModule, TextDataModule
from datamodules.split import Split

pytestmark = pytest.mark.slow

FILES, WORKERS = (1, 2, 3, 5), (0, 2)
NUM_DOCUMENTS, VALIDATION = 61, 5
ALIKE = "The same words in every document, so that only masks can differ."  # 64 letters, before its number


def write(folder: Path, num_files: int, alike: bool) -> None:
    folder.mkdir()
    texts = [
        f"{ALIKE}{number:016}" if alike else f"<{number}>" + "x" * (number * 7 % 60) for number in range(NUM_DOCUMENTS)
    ]
    for file in range(num_files):
        lines = [json.dumps({"text": text}) + "\n" for text in texts[file::num_files]]
        (folder / f"{file}.jsonl").write_text("".join(lines))


def make(kind: str, folder: Path, num_workers: int, seed: int = 0):
    source, options = JsonLines(str(folder)), {"train_length": 16, "batch_size": 4, "num_workers": num_workers}
    if kind == "streamed":
        return StreamingTextDataModule(
            source, ByteTokenizer(), validation_documents=VALIDATION, window=8, lanes=2, seed=seed, **options
        )
    cache = folder.with_name("cache")
    return TextDataModule(source, ByteTokenizer(), cache_dir=str(cache), seed=seed, **options)


def rows_of(loader, epoch: int) -> list[tuple[int, list[int], list[int]]]:
    """Sample, masked row and labels of all that a rank reads in an epoch; padding rows left out."""
    loader.sampler.set_epoch(epoch)
    rows = []
    for batch in loader:
        columns = (batch[name].tolist() for name in ("sample_ids", "input_ids", "labels"))
        rows += [row for row in zip(*columns, strict=True) if row[0] >= 0]
    return rows


def read(rank: int, world: int, folder: Path, kind: str, results) -> None:
    """What a rank reads in two epochs, for each number of files and of workers."""
    dist.init_process_group("gloo", f"file://{folder}/group-{kind}-{world}", rank=rank, world_size=world)
    for num_files, num_workers in product((*FILES, "alike"), WORKERS):
        loader = make(kind, folder / str(num_files), num_workers).train_dataloader()
        results.put(((num_files, num_workers, rank), [rows_of(loader, epoch) for epoch in range(2)]))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    for num_files in FILES:
        write(folder / str(num_files), num_files, alike=False)
    write(folder / "alike", 2, alike=True)
    return folder


@pytest.fixture(scope="module", params=product(("cached", "streamed"), (1, 2, 3)), ids=str)
def grid(slow, request, corpora):
    kind, world = request.param
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [context.Process(target=read, args=(rank, world, corpora, kind, results)) for rank in range(world)]
    for process in ranks:
        process.start()
    answers = dict(results.get(timeout=60) for _ in range(world * (len(FILES) + 1) * len(WORKERS)))
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return kind, world, answers


def pieces(rows) -> list[str]:
    restored = [
        [i if label == -100 else label for i, label in zip(ids, labels, strict=True)] for _, ids, labels in rows
    ]
    pad = ByteTokenizer().vocabulary.pad_id
    return sorted(bytes(i for i in ids if i != pad).decode() for ids in restored)


@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize("num_files", FILES)
def test_every_sample_once(grid, corpora, num_files: int, num_workers: int):
    kind, world, answers = grid
    data = make(kind, corpora / str(num_files), 0)
    texts = list(data.source.documents())
    texts = [text for text, out in zip(texts, Split().is_below(texts), strict=True) if not out]
    expected = sorted(text[start : start + 16] for text in texts for start in range(0, len(text), 16))
    for epoch in range(2):
        parts = [answers[num_files, num_workers, rank][epoch] for rank in range(world)]
        together = [row for part in parts for row in part]
        assert pieces(together) == expected
        assert len({sample for sample, *_ in together}) == len(expected)
        assert all(parts), "a rank read nothing"


@pytest.mark.parametrize("num_workers", WORKERS)
def test_masks_differ_by_sample_and_epoch_and_follow_the_seed(grid, corpora, num_workers: int):
    kind, world, answers = grid
    epochs = [[row for rank in range(world) for row in answers["alike", num_workers, rank][e]] for e in range(2)]
    # Pieces of 16 letters at the same offset are the same: masks alone tell them apart.
    masked = [{tuple(ids) for _, ids, _ in rows} for rows in epochs]
    for rows, different in zip(epochs, masked, strict=True):
        assert len(different) > 0.85 * len(rows)  # a few of some 220 pick the same places by chance
    by_sample = [{sample: (ids, labels) for sample, ids, labels in rows} for rows in epochs]
    assert by_sample[0].keys() == by_sample[1].keys()
    changed = [by_sample[0][sample] != by_sample[1][sample] for sample in by_sample[0]]
    assert sum(changed) > 0.9 * len(changed)

    again = rows_of(make(kind, corpora / "alike", 0).train_dataloader(), 0)
    assert {sample: (ids, labels) for sample, ids, labels in again} == by_sample[0]  # one rank, no worker: the same
    other_seed = rows_of(make(kind, corpora / "alike", 0, seed=1).train_dataloader(), 0)
    assert {sample: (ids, labels) for sample, ids, labels in other_seed} != by_sample[0]
