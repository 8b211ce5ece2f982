"""Which documents are held out: by their text, whatever else is in the corpus, and whatever reads it."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.tuner import Tuner

from datamodules import (
    ByteTokenizer,
    CharacterTokenizer,
    JsonLines,
    Mixture,
    StreamingTextDataModule,
    TextDataModule,
    TokenizerFile,
)
from datamodules.split import Split, text_hash
from gau_alpha import GAUAlphaConfig, GAUAlphaModule

TEXTS = [f"{number} " + "lazy fox dog "[number % 7 :] * (2 + number % 5) for number in range(200)]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., TextDataModule]:
    def make_data(texts: list[str], name: str = "corpus", **changes) -> TextDataModule:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        source = changes.pop("source", JsonLines(str(file)))
        arguments = {"tokenizer": ByteTokenizer(), "train_length": 8, "cache_dir": str(tmp_path / "cache")} | changes
        return TextDataModule(source, **arguments)

    return make_data


def held_out(data: TextDataModule) -> list[str]:
    return [data.tokenizer.decode(document) for document in data.evaluation_documents()]


def trained_on(data: TextDataModule) -> list[str]:
    data.setup()
    rows, _ = data._splits
    return [data.tokenizer.decode(rows.documents.document(int(number))) for number in rows.selected]


def test_what_else_is_in_the_corpus_changes_no_side(make):
    before = held_out(make(TEXTS))
    assert 10 < len(before) < 30  # a tenth of 200, as far as chance allows
    more = [f"another text, number {number}" for number in range(100)]
    for name, texts in {"more": more + TEXTS, "reversed": TEXTS[::-1], "fivefold": TEXTS * 5}.items():
        after = held_out(make(texts, name))
        assert [text for text in after if text in TEXTS] == before, name
        assert set(after).isdisjoint(trained_on(make(texts, name))), name


def test_the_seed_of_training_is_no_part_of_validation(make):
    first, second = make(TEXTS, seed=1), make(TEXTS, seed=2)
    assert held_out(first) == held_out(second)
    assert trained_on(first) == trained_on(second)
    batches = [[batch["input_ids"].tolist() for batch in data.val_dataloader()] for data in (first, second)]
    assert batches[0] == batches[1]
    batches = [[batch["input_ids"].tolist() for batch in data.train_dataloader()] for data in (first, second)]
    assert batches[0] != batches[1]
    assert held_out(make(TEXTS, split_seed=1)) != held_out(first)


def test_copies_share_a_side_and_a_text_is_evaluated_once(make, caplog):
    with caplog.at_level("INFO"):
        data = make([text for text in TEXTS for _ in range(5)])
        documents = held_out(data)
    assert len(documents) == len(set(documents))
    assert set(documents).isdisjoint(trained_on(data))
    assert len(trained_on(data)) == 5 * (200 - len(documents))
    assert "800 are exact copies of others" in caplog.text
    assert f"{5 * len(documents)} of 1000 documents ({len(documents) / 200:.1%}) are held out" in caplog.text


def test_copies_in_two_sources_share_a_side(make, tmp_path: Path):
    make(TEXTS, "one"), make([*TEXTS[100:], "and more"], "two")
    sources = [JsonLines(str(tmp_path / f"{name}.jsonl")) for name in ("one", "two")]
    data = make([], source=Mixture(sources, [1, 1]), validation_fraction=0.3)
    documents = held_out(data)
    assert len(documents) == len(set(documents)) > 30
    assert set(documents).isdisjoint(trained_on(data))


def test_another_tokenizer_holds_out_the_same_documents(make, tokenizer_file):
    texts = [text.lower() for text in TEXTS]
    other = make(texts, tokenizer=TokenizerFile(tokenizer_file("BPE")), train_length=4)
    number = [int(text.replace(" ", "").split("Ġ")[0]) for text in held_out(other)]
    assert [texts[one] for one in number] == held_out(make(texts))


def test_a_smaller_fraction_holds_out_a_part_of_a_larger_one(make):
    documents = [held_out(make(TEXTS, validation_fraction=fraction)) for fraction in (0.001, 0.05, 0.2, 0.5, 0.999)]
    for smaller, larger in pairwise(documents):
        assert larger[: len(smaller)] == smaller, "in the same order, from the beginning"
        assert len(larger) > len(smaller)
    assert len(documents[0]) == 1
    assert len(documents[-1]) <= 199


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_no_side_is_empty(make, fraction: float):
    data = make(TEXTS[:3] * 4, validation_fraction=fraction)
    places = Split().places(np.array([text_hash(text) for text in TEXTS[:3]], dtype=np.uint64))
    by_place = [TEXTS[number] for number in np.argsort(places)]
    assert held_out(data) == (by_place[:1] if fraction < 0.5 else by_place[:2])
    assert set(trained_on(data)) == set(by_place) - set(held_out(data))


def test_copies_of_one_text_are_no_corpus(make):
    with pytest.raises(ValueError, match="has 1 document that is not empty and no copy of another"):
        make(TEXTS[:1] * 9).setup()


def test_the_fraction_is_met_on_average_and_the_seed_matters():
    hashes = np.array([text_hash(str(number)) for number in range(20_000)], dtype=np.uint64)
    for seed in (0, 1, 2**64 - 1):
        (out,) = Split(seed, 0.1).held_out([Split(seed, 0.1).places(hashes)])
        assert out.mean() == pytest.approx(0.1, abs=0.01)
    one, other = (Split(seed, 0.1).places(hashes) for seed in (0, 1))
    assert abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) < 0.03


def test_the_identity_is_plain_data_and_the_corpus_goes_by_content(make, tokenizer_file):
    identity = make(TEXTS).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["split"] == {"by": "text", "split_seed": 0, "validation_fraction": 0.1}
    assert identity["corpus"]["documents"] == 200
    same = make(TEXTS[::-1], "reversed", tokenizer=TokenizerFile(tokenizer_file("BPE")), train_length=4, seed=3)
    assert same.identity() == identity
    assert make(TEXTS[1:], "fewer").identity()["corpus"]["sha256"] != identity["corpus"]["sha256"]


def test_one_document_can_not_be_split(make):
    with pytest.raises(ValueError, match="1 document that is not empty and no copy"):
        make(TEXTS[:1]).setup()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_where_a_side_would_be_empty_the_end_of_the_order_takes_it(make, count: int, fraction: float):
    """Of few documents: that of the smallest place is held out, or that of the largest is trained on."""
    for first in range(0, 60, count):
        texts = TEXTS[first : first + count]
        places = Split(0, fraction).places(np.array([text_hash(text) for text in texts], dtype=np.uint64))
        ordered = [texts[number] for number in np.argsort(places)]
        data = make(texts, f"corpus{first}", validation_fraction=fraction)
        out = 1 if fraction < 0.5 else count - 1
        assert (set(held_out(data)), set(trained_on(data))) == (set(ordered[:out]), set(ordered[out:]))


def test_what_further_rules_hold_out_is_evaluated_and_nothing_else(make, caplog):
    caplog.set_level("INFO")
    one, other = (make(TEXTS, validation_fraction=0.5, split_seed=seed) for seed in (0, 1))
    both = one.for_evaluation(rules=[other.split])
    assert set(held_out(both)) == set(held_out(one)) & set(held_out(other))
    assert trained_on(both) == trained_on(one)
    assert f"Evaluated are the {len(held_out(both))} of 200 documents" in caplog.text
    letters = one.for_evaluation(CharacterTokenizer())
    assert [text.replace(" ", "") for text in held_out(letters)] == [text.replace(" ", "") for text in held_out(one)]
    few = make(TEXTS[:4], "few", validation_fraction=0.3)
    with pytest.raises(ValueError, match="None of the 4 documents is held out both here and by"):
        few.for_evaluation(rules=[Split(seed, 0.3) for seed in range(1, 6)]).setup()


def test_streams_evaluate_what_further_rules_hold_out_too(tmp_path: Path):
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def stream(seed: int) -> StreamingTextDataModule:
        source = JsonLines(str(tmp_path / "corpus.jsonl"))
        return StreamingTextDataModule(source, ByteTokenizer(), 8, validation_fraction=0.5, split_seed=seed)

    both = stream(0).for_evaluation(rules=[stream(1).split])
    assert set(held_out(both)) == set(held_out(stream(0))) & set(held_out(stream(1)))


def test_attributes_that_lightnings_tools_set_are_honoured(make):
    data = make(TEXTS, batch_size=2)
    assert next(iter(data.train_dataloader()))["input_ids"].shape == (2, 8)
    data.batch_size = 4  # as Lightning's BatchSizeFinder does
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert next(iter(loader))["input_ids"].shape == (4, 8)
    data.train_length, data.seed, data.validation_fraction = 16, 7, 0.5
    expected = make(TEXTS, batch_size=4, train_length=16, seed=7, validation_fraction=0.5)
    for name in ("train_dataloader", "val_dataloader"):
        ours, theirs = ([batch["input_ids"].tolist() for batch in getattr(one, name)()] for one in (data, expected))
        assert ours == theirs
    data.batch_size = 0
    with pytest.raises(ValueError, match="batch_size=0"):
        data.train_dataloader()


@pytest.mark.slow
def test_the_batch_size_that_a_tuner_finds_is_trained_with(make):
    data = make(TEXTS, batch_size=2)
    module = GAUAlphaModule(GAUAlphaConfig(data.vocabulary.size, 8, 8, 8, 1), data.train_length)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=1, **quiet, enable_model_summary=False)
    found = Tuner(trainer).scale_batch_size(module, datamodule=data, max_trials=2, steps_per_trial=1)
    assert found == data.batch_size == 4
    assert next(iter(data.train_dataloader()))["input_ids"].shape == (4, 8)
