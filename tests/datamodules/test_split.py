"""Which documents are held out: by their text, whatever else is in the corpus, and whatever reads it."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from datamodules import ByteTokenizer, JsonLines, Mixture, TextDataModule, TokenizerFile
from datamodules.split import Split, text_hash

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
