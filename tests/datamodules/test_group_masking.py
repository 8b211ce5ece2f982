"""Whole words, spans, and rates over time."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from datamodules import (
    ByteTokenizer,
    CharacterTokenizer,
    SpanMasking,
    Synthetic,
    TextDataModule,
    TextFiles,
    TokenMasking,
    WholeWordMasking,
    WordPieceVocab,
)
from datamodules.masking import IGNORED, CosineRate, Jieba, LinearRate, StepwiseRate, WordList

WORDS = "the quick brown fox jumps over a lazy dog while seventeen extraordinarily sleepy cats look on from an old wall"


def rows_of(tokenizer, text: str, length: int):
    """Cut a text into rows: (tokens, attention mask, sample ids)."""
    (ids,) = tokenizer.encode_batch([text])
    rows = ids[: len(ids) // length * length].astype(np.int64).reshape(-1, length)
    return rows, np.ones_like(rows), np.arange(len(rows))


def text_of(num_words: int) -> str:
    return " ".join(np.random.default_rng(0).choice(WORDS.split(), size=num_words))


@pytest.fixture
def pieces(tmp_path: Path) -> WordPieceVocab:
    """Words of one to four tokens."""
    path = tmp_path / "vocab.txt"
    words = {word[:4] for word in WORDS.split()} | {
        f"##{word[start : start + 4]}" for word in WORDS.split() for start in range(4, len(word), 4)
    }
    path.write_text("\n".join(["[PAD]", "[UNK]", "[MASK]", *sorted(words), *"机器学习很好"]))
    return WordPieceVocab(str(path))


def rules(tokenizer, rate=0.15):
    (sample,) = tokenizer.encode_batch([WORDS])
    return {
        "tokens": TokenMasking(rate),
        "words": WholeWordMasking(rate).with_tokenizer(tokenizer, sample),
        "spans": SpanMasking(rate),
        "long spans": SpanMasking(rate, mean_length=8.0),
    }


NAMES = ["tokens", "words", "spans", "long spans"]


@pytest.mark.parametrize("length", [24, 64])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["pieces", "bytes"])
def test_rate_within_one_percent(pieces, kind: str, name: str, length: int):
    """Of 20,000 tokens, 15 % ± 0.15 % are targets."""
    tokenizer = pieces if kind == "pieces" else ByteTokenizer()
    rows = rows_of(tokenizer, text_of(20_000), length)
    rows = tuple(part[: -(-20_000 // length)] for part in rows)
    masked, labels = rules(tokenizer)[name].apply(*rows, 0, 0, tokenizer.vocabulary)
    target = labels != IGNORED
    assert target.mean() == pytest.approx(0.15, rel=0.01)
    assert (masked == tokenizer.vocabulary.mask_id)[target].mean() == pytest.approx(0.8, abs=0.03)
    assert (masked == rows[0])[~target].all()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_masked_the_same_in_any_batch_and_with_more_padding(pieces, name: str):
    rule = rules(pieces)[name]
    ids, attention, samples = rows_of(pieces, text_of(2000), 32)
    masked, labels = rule.apply(ids, attention, samples, 3, 2, pieces.vocabulary)
    some = np.array([17, 4, 5])
    wide = np.pad(ids[some], ((0, 0), (0, 9))), np.pad(attention[some], ((0, 0), (0, 9))), samples[some]
    wide_masked, wide_labels = rule.apply(*wide, 3, 2, pieces.vocabulary)
    np.testing.assert_array_equal(wide_masked[:, :32], masked[some])
    np.testing.assert_array_equal(wide_labels[:, :32], labels[some])
    for seed, epoch, shift in ((4, 2, 0), (3, 3, 0), (3, 2, 100)):
        other = rule.apply(ids, attention, samples + shift, seed, epoch, pieces.vocabulary)[1]
        assert ((other == IGNORED) != (labels == IGNORED)).any(axis=1).mean() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_padding_and_rows_without_tokens(pieces, name: str):
    ids, attention, samples = rows_of(pieces, text_of(2000), 32)
    ids[:, ::5] = pieces.vocabulary.special_ids[1]
    attention[:, 25:] = 0
    attention[0] = 0
    masked, labels = rules(pieces, 1.0)[name].apply(ids, attention, samples, 0, 0, pieces.vocabulary)
    untouched = (attention == 0) | np.isin(ids, pieces.vocabulary.special_ids)
    np.testing.assert_array_equal(labels != IGNORED, ~untouched)
    np.testing.assert_array_equal(masked[untouched], ids[untouched])


def test_whole_words_are_hidden_whole(pieces):
    ids, attention, samples = rows_of(pieces, text_of(4000), 64)
    _, labels = rules(pieces)["words"].apply(ids, attention, samples, 0, 0, pieces.vocabulary)
    goes_on = pieces.word_table().goes_on[ids]
    target = labels != IGNORED
    num_parts = 0
    for row in range(len(ids)):
        for column in range(1, 64):
            if goes_on[row, column]:
                assert target[row, column] == target[row, column - 1]
                num_parts += target[row, column]
    assert num_parts > 100
    # single tokens would have split words
    _, labels = TokenMasking().apply(ids, attention, samples, 0, 0, pieces.vocabulary)
    target = labels != IGNORED
    assert (target[:, 1:] != target[:, :-1])[goes_on[:, 1:]].any()


@pytest.mark.parametrize(("length", "tolerance"), [(64, 0.04), (512, 0.015)])
def test_words_of_any_length_are_hidden_about_equally_often(pieces, length: int, tolerance: float):
    """Short words also fill up what is left at the end, which matters less the longer the row."""
    ids, attention, samples = rows_of(pieces, text_of(60_000), length)
    _, labels = rules(pieces)["words"].apply(ids, attention, samples, 0, 0, pieces.vocabulary)
    target = labels != IGNORED
    (one,) = pieces.encode_batch(["fox"])
    (four,) = pieces.encode_batch(["extraordinarily"])
    assert len(four) == 4
    assert target[ids == one[0]].mean() == pytest.approx(0.15, abs=tolerance)
    assert target[ids == four[0]].mean() == pytest.approx(0.15, abs=tolerance)


def test_a_word_longer_than_its_share_of_the_row_is_hidden_as_often_as_the_rate_says():
    tokenizer = ByteTokenizer()
    rows = rows_of(tokenizer, "extraordinarily " * 8000, 16)
    (sample,) = tokenizer.encode_batch([WORDS])
    _, labels = WholeWordMasking(0.2).with_tokenizer(tokenizer, sample).apply(*rows, 0, 0, tokenizer.vocabulary)
    assert (labels != IGNORED).mean() == pytest.approx(0.2, rel=0.03)


def test_words_and_spans_end_where_documents_do(pieces):
    ids, attention, samples = rows_of(pieces, text_of(4000), 64)
    segments = np.broadcast_to(np.arange(64) // 3, ids.shape)
    (word,) = pieces.encode_batch(["extraordinarily"])
    ids[:] = np.tile(word, 16)  # words of four tokens over documents of three
    for name in ("words", "long spans"):
        rule = rules(pieces, 0.3)[name]
        hidden = rule.apply(ids, attention, samples, 0, 0, pieces.vocabulary, segment_ids=segments)[1] != IGNORED
        across = (hidden[:, 1:] != hidden[:, :-1])[:, segments[0, 1:] != segments[0, :-1]]
        together = (hidden[:, 1:] != hidden[:, :-1])[:, segments[0, 1:] == segments[0, :-1]]
        assert across.mean() > 0.3  # as for tokens that know nothing of each other: 2 · 0.3 · 0.7
        assert together.mean() < 0.3


@pytest.mark.parametrize("mean_length", [1.0, 3.0, 8.0])
def test_spans_have_the_mean_length(mean_length: float):
    ids = np.full((30, 4096), 65)
    rule = SpanMasking(0.05, mean_length=mean_length)
    _, labels = rule.apply(ids, np.ones_like(ids), np.arange(30), 0, 0, ByteTokenizer().vocabulary)
    hidden = np.pad(labels != IGNORED, ((0, 0), (1, 0)))
    num_runs = int((hidden[:, 1:] & ~hidden[:, :-1]).sum())
    # Two spans touch with the probability of the rate, and the last one of a row is shortened.
    assert hidden.sum() / num_runs == pytest.approx(mean_length / 0.95, rel=0.08)


def chinese(tmp_path: Path) -> TextFiles:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("机器学习很好" * (20 + number))
    return TextFiles(str(tmp_path / "?.txt"))


def test_chinese_is_refused_without_words(pieces, tmp_path: Path):
    for tokenizer in (pieces, ByteTokenizer(), CharacterTokenizer("机器学习很好")):
        data = TextDataModule(
            chinese(tmp_path), tokenizer, 24, masking=WholeWordMasking(), cache_dir=str(tmp_path / "cache")
        )
        # not told to set what would then be refused
        way_out = "Use WordPieceVocab or" if isinstance(tokenizer, ByteTokenizer) else "Set `segmenter`"
        with pytest.raises(ValueError, match=rf"\d+% of the tokens are .*Chinese .* {way_out}"):
            data.setup()
    with pytest.raises(ValueError, match="tokens that are one character each; ByteTokenizer has others"):
        TextDataModule(
            chinese(tmp_path),
            ByteTokenizer(),
            24,
            masking=WholeWordMasking(segmenter=WordList(word_list(tmp_path))),
            cache_dir=str(tmp_path / "cache"),
        ).setup()


def word_list(tmp_path: Path) -> str:
    (tmp_path / "words.list").write_text("机器 120\n学习 90\n机器学习 7\n\n好\n")
    return str(tmp_path / "words.list")


def test_chinese_words_from_a_list(pieces, tmp_path: Path):
    masking = WholeWordMasking(0.3, segmenter=WordList(word_list(tmp_path)))
    data = TextDataModule(chinese(tmp_path), pieces, 24, masking=masking, cache_dir=str(tmp_path / "cache"))
    (first, *_) = pieces.encode_batch(["机器学习很好"])
    num_hidden = 0
    for batch in data.train_dataloader():
        for ids, labels in zip(batch["input_ids"].numpy(), batch["labels"].numpy(), strict=True):
            hidden = labels != IGNORED
            original = np.where(hidden, labels, ids)
            for start in np.flatnonzero(original == first[0]).tolist():
                word = hidden[start : start + 4]
                assert word.all() or not word.any()
                num_hidden += word.all()
    assert num_hidden > 3


def test_word_list_takes_the_longest(tmp_path: Path):
    segmenter = WordList(word_list(tmp_path))
    assert segmenter.split("机器学习很好学习机") == ["机器学习", "很", "好", "学习", "机"]
    (tmp_path / "empty").write_text("好\n")
    with pytest.raises(ValueError, match="holds no word of two characters"):
        WordList(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="is no file"):
        WordList(str(tmp_path / "missing"))


def test_jieba_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(ValueError, match="pip install jieba"):
        Jieba()
    fake = types.ModuleType("jieba")
    fake.lcut = lambda text: [text[:2], text[2:]]
    monkeypatch.setitem(sys.modules, "jieba", fake)
    assert Jieba().split("机器学习") == ["机器", "学习"]


def test_text_without_words_is_refused(tmp_path: Path):
    (sample,) = CharacterTokenizer("ACGT").encode_batch(["ACGT" * 100])
    with pytest.raises(ValueError, match="a word has 400 tokens on average"):
        WholeWordMasking().with_tokenizer(CharacterTokenizer("ACGT"), sample)


def test_a_tokenizer_that_tells_no_words_is_refused():
    class Opaque(ByteTokenizer):
        word_table = ByteTokenizer.__mro__[1].word_table

    with pytest.raises(ValueError, match="Opaque does not tell where words begin"):
        WholeWordMasking().with_tokenizer(Opaque(), np.zeros(3, dtype=np.int32))


def test_rates_over_time():
    linear = LinearRate(0.3, 0.1, 100)
    assert [linear.at(step) for step in (0, 50, 100, 1000, None)] == pytest.approx([0.3, 0.2, 0.1, 0.1, 0.1])
    cosine = CosineRate(0.3, 0.1, 100)
    assert [cosine.at(step) for step in (0, 25, 50, 100, None)] == pytest.approx(
        [0.3, 0.27071, 0.2, 0.1, 0.1], abs=1e-5
    )
    stepwise = StepwiseRate([0.4, 0.2, 0.1], [10, 20])
    assert [stepwise.at(step) for step in (0, 9, 10, 19, 20, None)] == [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]


@pytest.mark.slow
def test_the_loader_follows_the_schedule_across_epochs_and_validation_stays_at_its_end(tmp_path: Path):
    source = Synthetic("copy", distance=8, length=64, num_documents=200)
    masking = SpanMasking(LinearRate(0.5, 0.1, 15))

    def loader(num_workers: int = 0):
        return TextDataModule(
            source, ByteTokenizer(), 64, 20, masking, num_workers=num_workers, cache_dir=str(tmp_path / "cache")
        )

    def rates(batches) -> list[float]:
        return [(batch["labels"] != IGNORED).double().mean().item() for batch in batches]

    training = loader().train_dataloader()
    batches = len(training)
    assert batches < 15, "the schedule ends in the second epoch"
    seen = rates(training)
    training.sampler.set_epoch(1)
    seen += rates(training)
    expected = [masking.rate.at(step) for step in range(2 * batches)]
    assert seen == pytest.approx(expected, abs=0.02)
    assert rates(loader().val_dataloader()) == pytest.approx([0.1], abs=0.02)
    helped = loader(2).train_dataloader()
    assert rates(helped) == seen[:batches]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpanMasking(mean_length=0.5), "mean_length=0.5 must be at least 1"),
        (lambda: WholeWordMasking(rate=0.0), "rate=0.0 must lie in"),
        (lambda: LinearRate(0.0, 0.1, 5), "start=0.0 must lie in"),
        (lambda: CosineRate(0.1, 1.1, 5), "end=1.1 must lie in"),
        (lambda: LinearRate(0.1, 0.1, 0), "num_steps=0 must be at least 1"),
        (lambda: StepwiseRate([0.1, 2.0], [4]), r"rates\[1\]=2.0 must lie in"),
        (lambda: StepwiseRate([0.1, 0.2], [4, 5]), r"steps=\[4, 5\] must be ascending"),
        (lambda: StepwiseRate([0.1, 0.2, 0.3], [5, 5]), r"steps=\[5, 5\] must be ascending"),
        (lambda: StepwiseRate([], []), "one fewer than"),
    ],
)
def test_bad_arguments(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
