"""What holds for every way of making rows: nothing lost, nothing twice, the same on every rank, resumable."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batches import read
from torch.utils.data import DataLoader

from datamodules import Blocks, ByteTokenizer, Mixture, Packed, Synthetic, TextDataModule, TextFiles, VariableLength
from datamodules.rows import FixedSet, LogUniform, Uniform
from datamodules.rows.packed import best_fit
from datamodules.sampling import EpochSampler, loader_options
from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM

MAKERS = {
    "blocks": Blocks(),
    "packed": Packed(),
    "fixed set": VariableLength(FixedSet([8, 32, 16])),
    "uniform": VariableLength(Uniform(4, 32), tokens_per_batch=100),
    "log-uniform": VariableLength(LogUniform(8, 32, 4)),
}
LENGTHS = np.array([0, 5, 0, 31, 32, 33, 64, 1, 0, 500, 7, 7, 7, 0])


def originals(batch) -> list[bytes]:
    """The documents' pieces in a batch, masking undone."""
    ids = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
    segments = batch.get("segment_ids", batch["attention_mask"])
    return [
        bytes(row[segment == number].tolist())
        for row, segment in zip(ids, segments, strict=True)
        for number in range(1, int(segment.max()) + 1)
    ]


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_every_token_is_in_one_row(maker):
    plan = maker.plan(LENGTHS, 32, 8, seed=0)
    pieces = plan.pieces(np.arange(len(plan)))
    seen = [
        (document, token)
        for document, start, size in zip(pieces.document, pieces.start, pieces.size, strict=True)
        for token in range(start, start + size)
    ]
    assert sorted(seen) == [(document, token) for document, n in enumerate(LENGTHS) for token in range(n)]
    room = {row: group.length for group in plan.groups for first, stop in group.ranges for row in range(first, stop)}
    filled = np.bincount(pieces.row, weights=pieces.size)
    assert (filled > 0).all()
    assert all(tokens <= room[row] for row, tokens in enumerate(filled))
    assert plan.efficiency(int(LENGTHS.sum())) == LENGTHS.sum() / sum(room.values())
    # any rows in any order
    rows = np.array([len(plan) - 1, 0, 1, 0])
    some = plan.pieces(rows)
    for place, row in enumerate(rows):
        for name in ("document", "start", "size"):
            here, there = getattr(some, name)[some.row == place], getattr(pieces, name)[pieces.row == row]
            assert here.tolist() == there.tolist()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("num_files", [1, 2, 3, 5])
@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_every_token_once_over_ranks_and_workers(tmp_path: Path, maker, num_files: int, workers: int):
    """Files ∈ {1, 2, 3, 5}, ranks ∈ {1, 2, 3}: the pieces that all ranks read are the training split, once."""
    for file in range(num_files):
        lines = (f"{file} {line} " + "tail" * (line * 7 % 23) for line in range(30))
        (tmp_path / f"{file}.txt").write_text("\n".join(lines))
    source = TextFiles(str(tmp_path / "*.txt"), per_line=True)
    data = TextDataModule(source, ByteTokenizer(), 32, 4, rows=maker, cache_dir=str(tmp_path / "cache"))
    rows = data.train_dataloader().dataset
    expected = sum(int(rows.documents.lengths[document]) for document in rows.selected)
    whole = None
    for world in (1, 2, 3) if workers == 0 else (2,):
        pieces: list[bytes] = []
        samples: list[int] = []
        shapes = []
        for rank in range(world):
            sampler = EpochSampler(rows.plan.groups, 4, 0, world, rank)
            sampler.set_epoch(1)
            batches = list(DataLoader(rows, sampler=sampler, **loader_options(workers, False)))
            assert len(batches) == len(sampler)
            shapes.append([batch["input_ids"].shape[1] for batch in batches])
            for batch in batches:
                samples += [sample for sample in batch["sample_ids"].tolist() if sample >= 0]
                pieces += originals(batch)
        assert shapes.count(shapes[0]) == world  # one length per step, as many steps
        assert sorted(samples) == list(range(len(rows)))
        assert sum(map(len, pieces)) == expected
        whole = whole or sorted(pieces)
        assert sorted(pieces) == whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(0, 0), (0, 2), (2, 1)])
@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_stop_and_resume_anywhere(tmp_path: Path, maker, workers):
    """Stop at 10, go on to 20, go on to the end of the epoch and one more: samples, lengths and masks are the same."""

    def loader(num_workers: int):
        source = Synthetic("copy", distance=5, length=45, num_documents=160)
        return TextDataModule(
            source, ByteTokenizer(), 32, 5, rows=maker, num_workers=num_workers, cache_dir=str(tmp_path / "cache")
        ).train_dataloader()

    straight = loader(workers[0])
    first = read(straight)
    straight.sampler.set_epoch(1)
    second = read(straight)
    assert len(first) == len(second) >= 40
    assert first != second

    begun = loader(workers[0])
    assert read(begun, 10) == first[:10]
    middle = loader(workers[1])
    middle.load_state_dict(begun.state_dict())
    assert read(middle, 10) == first[10:20]
    last = loader(workers[0])
    last.load_state_dict(middle.state_dict())
    assert read(last) == first[20:]
    last.sampler.set_epoch(1)
    assert read(last) == second


def test_another_layout_inside_an_epoch_is_an_error(tmp_path: Path):
    def loader(maker):
        source = Synthetic("copy", distance=5, length=32, num_documents=100)
        return TextDataModule(
            source, ByteTokenizer(), 32, 5, rows=maker, cache_dir=str(tmp_path / "cache")
        ).train_dataloader()

    begun = loader(VariableLength(FixedSet([32])))
    next(iter(begun))
    loader(VariableLength(FixedSet([32]))).load_state_dict(begun.state_dict())
    with pytest.raises(ValueError, match="inside an epoch with layout="):
        loader(VariableLength(FixedSet([32]), tokens_per_batch=64)).load_state_dict(begun.state_dict())


def slow_best_fit(sizes: list[int], row_length: int) -> list[int]:
    """Piece by piece: into the fullest row with room, of these the one that has been as full for the longest."""
    rooms: list[int] = []
    row = [0] * len(sizes)
    for piece in sorted(range(len(sizes)), key=lambda piece: -sizes[piece]):
        fitting = [room for room in rooms if room >= sizes[piece]]
        if fitting:
            row[piece] = rooms.index(min(fitting))
        else:
            row[piece] = len(rooms)
            rooms.append(row_length)
        rooms[row[piece]] -= sizes[piece]
    return row


@pytest.mark.parametrize("row_length", [1, 7, 32])
def test_best_fit_is_as_good_as_piece_by_piece(row_length: int):
    """Which of several rows with the same room is taken may differ; what is left in the rows may not."""
    for seed in range(30):
        sizes = np.random.default_rng(seed).integers(1, row_length + 1, size=seed * 5)
        rows = best_fit(sizes, row_length)
        slow = np.array(slow_best_fit(sizes.tolist(), row_length), dtype=np.int64)
        filled, expected = (np.bincount(each, weights=sizes) for each in (rows, slow))
        assert sorted(filled) == sorted(expected)
        assert (filled <= row_length).all()


def test_packing_log_normal_lengths_is_efficient():
    lengths = np.random.default_rng(0).lognormal(mean=3.5, sigma=1.0, size=20_000).astype(np.int64) + 1
    assert np.median(lengths) < 40
    packed = Packed().plan(lengths, 128, 8, seed=0).efficiency(int(lengths.sum()))
    assert packed >= 0.95
    assert Blocks().plan(lengths, 128, 8, seed=0).efficiency(int(lengths.sum())) < 0.5


def test_packing_a_million_documents_takes_seconds():
    lengths = np.random.default_rng(0).lognormal(mean=4.5, sigma=1.0, size=1_000_000).astype(np.int64) + 1
    plan = Packed().plan(lengths, 512, 8, seed=0)
    assert plan.efficiency(int(lengths.sum())) > 0.98


def make_packed(tmp_path: Path) -> TextDataModule:
    for number, text in enumerate(["abcdefgh", "ijklmno", "pqr", "stu", "vw", "xyz01", "2345678", "9"]):
        (tmp_path / f"{number}.txt").write_text(text)
    source = TextFiles(str(tmp_path / "*.txt"))
    return TextDataModule(source, ByteTokenizer(), 10, 2, rows=Packed(), cache_dir=str(tmp_path / "cache"))


def test_golden_packed_batches(tmp_path: Path):
    """Pinned to the letter: order, packing, masks."""
    loader = make_packed(tmp_path).train_dataloader()
    shown = []
    for batch in loader:
        for ids, labels, segments in zip(batch["input_ids"], batch["labels"], batch["segment_ids"], strict=True):
            text = "".join("." if token == 256 else "?" if token == 257 else chr(token) for token in ids.tolist())
            answers = "".join("." if label == -100 else chr(label) for label in labels.tolist())
            shown.append((text, answers, "".join(map(str, segments.tolist()))))
    assert shown == GOLDEN


GOLDEN = [
    ("2345678s?u", "........t.", "1111111222"),
    ("ijklmnopq?", "......o..r", "1111111222"),
    ("?yz01.....", "x.........", "1111100000"),
    ("ab?defghvw", "..c.......", "1111111122"),
]


def test_packed_rows_restart_positions_and_documents_do_not_see_each_other(tmp_path: Path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "attention_key_size": 8, "num_hidden_layers": 2}
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(vocab_size=258, initializer_range=0.5, **sizes)).eval()
    num_documents = 0
    with torch.no_grad():
        for batch in make_packed(tmp_path).train_dataloader():
            layout = {name: batch[name] for name in ("attention_mask", "segment_ids")}
            together = model(batch["input_ids"], **layout)
            for row, segments in enumerate(batch["segment_ids"]):
                for segment in range(1, int(segments.max()) + 1):
                    alone = model(batch["input_ids"][row][segments == segment][None])[0]
                    # float32 sums in another order, which differs between processors: logits up to 10, eps 1.2e-7
                    torch.testing.assert_close(together[row][segments == segment], alone, rtol=1e-5, atol=3e-5)
                    num_documents += 1
    assert num_documents == 7
    assert batch["segment_ids"].max() > 1


def test_batches_of_variable_length_are_worth_the_same_tokens_and_follow_the_distribution():
    lengths = np.full(2000, 4000)
    distribution = FixedSet([64, 128, 512], weights=[1, 2, 1])
    plan = VariableLength(distribution, tokens_per_batch=1024).plan(lengths, 512, 8, seed=0)
    assert {group.length: group.batch_size for group in plan.groups} == {64: 16, 128: 8, 512: 2}
    sampler = EpochSampler(plan.groups, 8, 0, 1, 0)
    drawn = np.array([request.length for request in sampler])
    # The tails of documents, one in about twenty rows, go to shorter lengths.
    for length, share in ((64, 0.25), (128, 0.5), (512, 0.25)):
        assert (drawn == length).mean() == pytest.approx(share, abs=0.03)
    # mixed over the epoch: a tenth of it looks like the whole
    assert (drawn[: len(drawn) // 10] == 128).mean() == pytest.approx(0.5, abs=0.1)
    assert len(VariableLength(distribution, 1024).plan(lengths, 512, 8, seed=1)) != len(plan)


def test_short_documents_go_to_short_rows():
    plan = VariableLength(LogUniform(16, 512, 6)).plan(np.full(1000, 20), 512, 8, seed=0)
    assert max(group.length for group in plan.groups) == 32
    assert plan.efficiency(20_000) > 0.6


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (Uniform(10, 40, 4), [10, 20, 30, 40]),
        (LogUniform(16, 128, 4), [16, 32, 64, 128]),
        (LogUniform(1, 4, 4), [1, 2, 3, 4]),
        (FixedSet([5, 3]), [3, 5]),
    ],
)
def test_lengths_of_distributions(distribution, expected):
    assert distribution.lengths().tolist() == expected
    assert distribution.shares().sum() == pytest.approx(1)


def test_weights_stay_with_their_lengths():
    assert FixedSet([5, 3], [1, 3]).shares().tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedSet([]), r"values=\[\] must hold at least one length"),
        (lambda: FixedSet([4, 4]), r"values=\[4, 4\]"),
        (lambda: FixedSet([4, 0]), r"values\[1\]=0 must be at least 1"),
        (lambda: FixedSet([4], [1, 2]), r"weights=\[1, 2\] must hold a positive number for each"),
        (lambda: FixedSet([4], [-1]), r"weights=\[-1\]"),
        (lambda: Uniform(8, 8), "minimum=8 and maximum=8"),
        (lambda: LogUniform(0, 8), "minimum=0 must be at least 1"),
        (lambda: Uniform(1, 3, 4), "num_lengths=4 must be at least 2, and at most"),
        (
            lambda: VariableLength(FixedSet([64])).plan(LENGTHS, 32, 8, 0),
            "longest of the row lengths is 64, above train_length=32",
        ),
        (
            lambda: VariableLength(FixedSet([32]), tokens_per_batch=31).plan(LENGTHS, 32, 8, 0),
            "tokens_per_batch=31 does not hold one row of 32 tokens",
        ),
    ],
)
def test_bad_arguments(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def make_mixture(tmp_path: Path, weights=(3.0, 1.0), rows=MAKERS["blocks"]) -> TextDataModule:
    small = Synthetic("recall", distance=6, length=32, num_documents=20)
    large = Synthetic("copy", distance=6, length=64, num_documents=100)
    return TextDataModule(
        Mixture([small, large], list(weights)),
        ByteTokenizer(),
        train_length=32,
        batch_size=5,
        rows=rows,
        cache_dir=str(tmp_path / "cache"),
    )


def is_recall(batch) -> torch.Tensor:
    """Only the texts of `recall` have spaces and signs."""
    ids = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
    return (ids == ord("=")).any(dim=1)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_a_mixture_has_its_shares_in_every_epoch(tmp_path: Path, maker):
    loader = make_mixture(tmp_path, rows=maker).train_dataloader()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        samples = torch.cat([batch["sample_ids"] for batch in batches])
        from_first = (samples[samples >= 0] < loader.dataset.plan._first_row[1]).double()
        assert len(from_first) == len(loader.dataset)
        # each length has the shares, where both sources have rows of it
        assert from_first.mean() == pytest.approx(0.75, abs=0.01 if len(loader.sampler.groups) == 1 else 0.1)
        if maker is MAKERS["blocks"]:
            assert torch.equal(torch.cat([is_recall(batch) for batch in batches]).double(), from_first)


def test_a_small_source_is_walked_through_evenly_and_a_large_one_goes_on_where_it_stopped(tmp_path: Path):
    loader = make_mixture(tmp_path).train_dataloader()
    (group,) = loader.sampler.groups
    counts = np.zeros(group.num_rows, dtype=int)
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        for request in loader.sampler:
            np.add.at(counts, request.rows, 1)
        for first, stop in group.ranges:
            assert np.ptp(counts[first:stop]) <= 1
    assert counts[: group.ranges[0][1]].min() > 10
    assert counts[group.ranges[1][0] :].max() <= 2


def test_the_mix_is_a_function_of_the_step_and_validation_is_no_mix(tmp_path: Path):
    first, again = (make_mixture(tmp_path).train_dataloader() for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
    data = make_mixture(tmp_path)
    validation = list(data.val_dataloader())
    samples = torch.cat([batch["sample_ids"] for batch in validation])
    assert sorted(samples.tolist()) == list(range(len(samples))), "each row once"
    assert 2 + 5 < len(data.evaluation_documents()) < 2 + 20, "a tenth of each source, as chance allows"
    # other weights read the same caches
    before = sorted((tmp_path / "cache").iterdir())
    make_mixture(tmp_path, (1.0, 1.0)).setup()
    assert sorted((tmp_path / "cache").iterdir()) == before


def test_a_mixture_as_a_stream_interleaves_by_weight():
    small, large = Synthetic("recall", 6, 32, 100), Synthetic("copy", 6, 32, 300)
    documents = list(Mixture([small, large], [1, 3]).documents())
    assert len(documents) == 400
    assert sorted(documents) == sorted([*small.documents(), *large.documents()])
    assert documents == list(Mixture([small, large], [1, 3]).documents())
    assert documents != list(Mixture([small, large], [1, 3], seed=1).documents())
    share = sum("=" in document for document in documents[:200]) / 200
    assert share == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(
    ("sources", "weights", "message"),
    [
        ([], [], "sources has 0 entries"),
        ([Synthetic()], [1.0, 2.0], "sources has 1 entries .* has 2"),
        ([Synthetic()], [0.0], r"weights=\[0.0\] must all be positive"),
        ([Mixture([Synthetic()], [1.0])], [1.0], "mixtures do not nest"),
    ],
)
def test_bad_mixtures(sources, weights, message: str):
    with pytest.raises(ValueError, match=message):
        Mixture(sources, weights)
