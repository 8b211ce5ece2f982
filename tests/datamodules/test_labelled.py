"""Labelled records become rows: what they hold, what is cut, what is left out, what is refused."""

import itertools
import json
import string
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer
from tokenizers import models as library
from tokenizers.pre_tokenizers import Split

from datamodules import (
    ByteTokenizer,
    CharacterTokenizer,
    LabelledTextDataModule,
    MultipleChoiceExamples,
    QuestionAnsweringExamples,
    SequenceExamples,
    TokenExamples,
    TokenizerFile,
    WordPieceVocab,
)
from datamodules.labelled import Table
from datamodules.labelled.frame import Frame, shortened
from datamodules.sampling import Request

PAD, MASK, UNK, CLS, SEP, A = range(6)


@pytest.fixture
def letters(tmp_path):
    """A tokenizer of letters with BERT's special tokens: a is 5, b is 6, …."""
    special = ("[PAD]", "[MASK]", "[UNK]", "[CLS]", "[SEP]")
    words = {word: number for number, word in enumerate((*special, *string.ascii_lowercase))}
    tokenizer = Tokenizer(library.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(tmp_path / "letters.json"))
    return TokenizerFile(str(tmp_path / "letters.json"))


@pytest.fixture
def module(letters, tmp_path):
    """A function that builds a data module on some records."""

    def build(examples, records, train_length=32, **options):
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        options.setdefault("tokenizer", letters)
        return LabelledTextDataModule(
            examples,
            train_length,
            Table(str(tmp_path / "train.jsonl")),
            Table(str(tmp_path / "train.jsonl")),
            **options,
        )

    return build


def rows_of(module, part="validation"):
    return module._rows(part)


def batch_of(module, part="validation"):
    rows = rows_of(module, part)
    return rows[Request(0, np.arange(len(rows)), 0)]


def test_pairs_of_texts_are_framed_and_padded(module):
    records = [{"text": "ab", "other": "c", "label": "yes"}, {"text": "a", "other": "", "label": 0}]
    batch = batch_of(module(SequenceExamples(["no", "yes"], text_pair="other"), records))
    assert batch["input_ids"].tolist() == [[CLS, A, A + 1, SEP, A + 2, SEP], [CLS, A, SEP, SEP, PAD, PAD]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["sample_ids"].tolist() == [0, 1]


def test_a_tokenizer_without_special_tokens_frames_nothing(module):
    batch = batch_of(module(SequenceExamples(["no", "yes"]), [{"text": "ab", "label": 1}], tokenizer=ByteTokenizer()))
    assert batch["input_ids"].tolist() == [[97, 98]]


def test_labels_stand_at_the_first_token_of_a_word(module):
    batch = batch_of(module(TokenExamples(["O", "B"], separator=""), [{"text": ["ab", "c"], "label": ["B", 0]}]))
    assert batch["input_ids"].tolist() == [[CLS, A, A + 1, A + 2, SEP]]
    assert batch["labels"].tolist() == [[-100, 1, -100, 0, -100]]
    assert batch["word_starts"].tolist() == [[0, 1, 0, 1, 0]]
    cut = rows_of(
        module(TokenExamples(["O", "B"], separator=""), [{"text": ["ab", "c"], "label": ["B", "O"]}], 4), "train"
    )
    assert cut.examples[0].arrays["labels"].tolist() == [-100, 1, -100, -100]
    assert cut.examples[0].is_cut


def test_choices_share_a_length(module):
    records = [
        {"text": "a", "text_pair": ["b", "cd", "e"], "label": 2},
        {"text": "a", "text_pair": ["bcd", ""], "label": 0},
    ]
    batch = batch_of(module(MultipleChoiceExamples(), records))
    assert batch["input_ids"].shape == (2, 3, 7)
    assert batch["input_ids"][0, 1].tolist() == [CLS, A, SEP, A + 2, A + 3, SEP, PAD]
    assert batch["attention_mask"].sum(-1).tolist() == [[5, 6, 5], [7, 4, 0]]
    assert batch["choice_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [2, 0]


def test_an_answer_is_found_among_the_tokens(module):
    record = {"question": "q", "context": "abcdef", "answers": {"text": ["cd"], "answer_start": [2]}}
    batch = batch_of(module(QuestionAnsweringExamples(), [record]))
    (first, last), ids = batch["labels"][0].tolist(), batch["input_ids"][0]
    assert ids[first : last + 1].tolist() == [A + 2, A + 3]
    assert batch["offsets"][0, first].tolist() == [2, 3]
    assert batch["answerable"][0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0]


def test_an_answer_that_is_cut_off_is_left_out_and_counted(module):
    answers = [
        {"text": ["a"], "answer_start": [0]},
        {"text": ["h"], "answer_start": [7]},
        {"text": [], "answer_start": []},
    ]
    records = [{"question": "q", "context": "abcdefgh", "answers": answer} for answer in answers]
    data = module(QuestionAnsweringExamples(), records, train_length=8)
    with pytest.warns(UserWarning, match="train: left out 1 of 3 records: the answer is cut off"):
        rows = rows_of(data, "train")
    assert len(rows) == 1
    with pytest.warns(UserWarning, match="left out 1 of 3 records: there is no answer"):
        assert len(rows_of(data)) == 2


def test_what_is_cut_is_said_and_evaluation_is_whole(module):
    records = [{"text": "abcdefgh", "label": 0}, {"text": "a", "label": 1}]
    data = module(SequenceExamples(["no", "yes"]), records, train_length=6)
    with pytest.warns(UserWarning, match="train: 1 of 2 rows were cut to 6 tokens"):
        assert batch_of(data, "train")["input_ids"].shape == (2, 6)
    assert batch_of(data)["input_ids"].shape == (2, 10)
    data = module(SequenceExamples(["no", "yes"]), records, train_length=6, evaluation_length=7)
    with pytest.warns(UserWarning, match="validation: 1 of 2 rows were cut to 7 tokens"):
        assert batch_of(data)["input_ids"].shape == (2, 7)


def test_the_longest_is_cut_first():
    for lengths in ([5, 3, 9], [4, 4], [0, 7], [6]):
        for room in range(-2, sum(lengths) + 3):
            kept = list(lengths)  # by taking away one at a time
            while sum(kept) > max(0, room):
                at = max(range(len(kept)), key=lambda number: (kept[number], number))
                kept[at] -= 1
            assert shortened(lengths, room, [True] * len(lengths)) == kept
    assert shortened([5, 9], 8, [False, True]) == [5, 3]
    assert shortened([9, 2], 8, [False, True]) == [9, 0]


def test_a_rank_without_a_row_gets_padding_without_a_label(module):
    records = [{"text": "ab", "label": 1}]
    rows = rows_of(module(SequenceExamples(["no", "yes"]), records))
    batch = rows[Request(0, np.array([], dtype=np.int64), 0)]
    assert batch["attention_mask"].sum() == 0
    assert batch["labels"].tolist() == [-100]
    assert batch["sample_ids"].tolist() == [-1]


def test_order_is_a_function_of_seed_and_epoch_and_can_be_resumed(module):
    data = module(SequenceExamples(["no", "yes"]), [{"text": "a" * n, "label": 0} for n in range(1, 21)], batch_size=4)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    whole = [batch["sample_ids"].tolist() for batch in loader]
    assert sorted(itertools.chain(*whole)) == list(range(20))
    loader.sampler.set_epoch(2)
    assert [batch["sample_ids"].tolist() for batch in loader] != whole
    again = data.train_dataloader()
    state = {**again.state_dict(), "epoch": 1, "batches": 2}
    again.load_state_dict(state)
    assert [batch["sample_ids"].tolist() for batch in again] == whole[2:]


def test_without_records_for_validation_a_share_is_kept(letters, tmp_path):
    records = [{"text": "a" * n, "label": 0} for n in range(1, 21)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    data = LabelledTextDataModule(
        SequenceExamples(["no", "yes"]), 32, Table(str(tmp_path / "train.jsonl")), tokenizer=letters
    )
    parts = [
        {len(example.arrays["input_ids"]) - 2 for example in rows_of(data, part).examples}
        for part in ("train", "validation")
    ]
    assert (len(parts[0]), len(parts[1])) == (18, 2)
    assert parts[0] | parts[1] == set(range(1, 21))


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "csv", "folder", "saved"])
def test_tables(tmp_path, kind):
    records = datasets.Dataset.from_list([{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    path = tmp_path / f"data.{kind}"
    if kind == "saved":
        records.save_to_disk(path)
    elif kind == "folder":
        path.mkdir()
        records.to_json(path / "train.jsonl")
    elif kind == "parquet":
        records.to_parquet(path)
    elif kind == "csv":
        records.to_csv(path)
    else:
        records.to_json(path, compression="gzip" if kind.endswith("gz") else None)
    assert [dict(record) for record in Table(str(path)).open()] == list(records)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", "a", "files end in one of .jsonl"),
        ("x.jsonl", "{", "can't be loaded"),
        (None, None, "is no file or folder"),
    ],
)
def test_a_table_that_can_not_be_opened(tmp_path, name, content, words):
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        Table(str(tmp_path / (name or "missing.jsonl"))).open()


@pytest.mark.parametrize(
    ("examples", "record", "words"),
    [
        (SequenceExamples(["no", "yes"]), {"text": "a"}, "record 0: there is no column 'label', only text"),
        (SequenceExamples(["no", "yes"]), {"text": "a", "label": "maybe"}, "'maybe' is none of no, yes"),
        (SequenceExamples(["no", "yes"]), {"text": "a", "label": 2}, "2 is none of no, yes"),
        (SequenceExamples(["no", "yes"]), {"text": 3, "label": 1}, "3, which is no text"),
        (TokenExamples(["O"]), {"text": "a", "label": ["O"]}, "list of words"),
        (TokenExamples(["O"]), {"text": ["a", "b"], "label": ["O"]}, "a label for each of 2 words"),
        (TokenExamples(["O"]), {"text": [""], "label": ["O"]}, "'' has no token"),
        (MultipleChoiceExamples(), {"text": "a", "text_pair": ["b"], "label": 0}, "two or more texts"),
        (MultipleChoiceExamples(), {"text": "a", "text_pair": ["b", "c"], "label": 2}, "0 to 1"),
        (
            QuestionAnsweringExamples(),
            {"question": "a", "context": "bcd", "answers": {"text": ["d"], "answer_start": [1]}},
            "does not stand at character 1",
        ),
        (QuestionAnsweringExamples(), {"question": "a", "context": "bcd", "answers": ["d"]}, "text and answer_start"),
    ],
)
def test_records_that_are_wrong_are_named(module, examples, record, words):
    with pytest.raises(ValueError, match=words):
        rows_of(module(examples, [record]))


def test_records_are_held_out_by_their_text(letters, tmp_path):
    """Whatever their order, their labels and the seed; copies share a side."""
    texts = ["".join(pair) for pair in itertools.product("abcdefgh", repeat=2)]

    def sides(records, **options):
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        train = Table(str(tmp_path / "train.jsonl"))
        data = LabelledTextDataModule(SequenceExamples(["no", "yes"]), 32, train, tokenizer=letters, **options)
        read = []
        for part in ("train", "validation"):
            ids = [example.arrays["input_ids"][1:-1] for example in rows_of(data, part).examples]
            read.append({letters.decode(one).replace(" ", "") for one in ids})
        assert read[0].isdisjoint(read[1])
        assert read[0] | read[1] == {record["text"] for record in records}
        return read[1]

    records = [{"text": text, "label": number % 2} for number, text in enumerate(texts)]
    held_out = sides(records, validation_fraction=0.25)
    assert 4 < len(held_out) < 32
    assert sides(records[::-1], validation_fraction=0.25, seed=5) == held_out
    copies = [{**record, "label": 1 - record["label"]} for record in records]
    assert sides(records + copies, validation_fraction=0.25) == held_out
    assert sides(records, validation_fraction=0.25, split_seed=1) != held_out
    assert held_out - {"aa"} == sides([one for one in records if one["text"] != "aa"], validation_fraction=0.25)


@pytest.mark.parametrize(
    ("examples", "one", "other"),
    [
        (TokenExamples(["O", "B"]), {"text": ["a"], "label": ["O"]}, {"text": ["a"], "label": ["B"]}),
        (
            MultipleChoiceExamples(),
            {"text": "a", "text_pair": ["b", "c"], "label": 0},
            {"text": "a", "text_pair": ["b", "c"], "label": 1},
        ),
        (QuestionAnsweringExamples(), {"context": "a", "question": "b"}, {"context": "a", "question": "c"}),
    ],
)
def test_a_label_or_another_question_changes_no_side(examples, one, other):
    assert examples.texts(one) == examples.texts(other)
    assert examples.texts(one) != examples.texts({**one, "text": ["x"], "context": "x"})


def test_settings_that_are_wrong_are_named(module, letters):
    examples = SequenceExamples(["no", "yes"])
    for options, words in (
        ({"train_length": 0}, "train_length=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"evaluation_length": 0}, "evaluation_length=0"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"tokenizer": None}, "needs a tokenizer"),
    ):
        with pytest.raises(ValueError, match=words):
            module(examples, [], **options)
    with pytest.raises(ValueError, match="train is not set"):
        rows_of(LabelledTextDataModule(examples, 32, tokenizer=letters), "train")


def test_offsets_tell_which_characters_a_token_stands_for(letters, tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "中", "国", "ab", "##c"])
    )
    pieces = WordPieceVocab(str(tmp_path / "vocab.txt"))
    for tokenizer, text in (
        (ByteTokenizer(), "aé中\n"),
        (CharacterTokenizer(), "a b"),
        (letters, "abc"),
        (letters, "a[MASK]b"),
        (pieces, "中国  ABC [MASK] ab"),
    ):
        offsets, ids = tokenizer.offsets(text), tokenizer.encode_batch([text])[0]
        assert len(offsets) == len(ids)
        assert (offsets[:, 0] < offsets[:, 1]).all()
        assert (np.diff(offsets[:, 0]) >= 0).all()
    for tokenizer, text, parts in (
        (pieces, "中国  ABC", ["中", "国", "AB", "C"]),
        (ByteTokenizer(), "aé", ["a", "é", "é"]),
    ):
        assert [text[first:stop] for first, stop in tokenizer.offsets(text)] == parts


def test_a_row_says_where_its_texts_start(letters):
    row = Frame(letters).put([torch.arange(3).numpy(), torch.arange(2).numpy()], None)
    assert (row.starts, row.kept, row.is_cut) == ([1, 5], [3, 2], False)


@pytest.mark.parametrize(
    ("world_size", "left"),
    [(1, [[2, 3], [6, 7], [8]]), (2, [[0, 1], [2, 3], [4, 5], [6, 7], [8]])],
    ids=["one process", "batches of two processes"],
)
def test_batches_that_are_predicted_are_left_out(module, world_size, left):
    records = [{"text": "ab" * n, "label": "no"} for n in range(1, 10)]
    data = module(SequenceExamples(["no", "yes"]), records, batch_size=2)
    data.trainer = SimpleNamespace(world_size=world_size)
    data.predicted_rows = np.array([0, 1, 4, 5])
    loader = data.predict_dataloader()
    batches = list(loader)
    assert [batch["sample_ids"].tolist() for batch in batches] == left
    assert [loader.dataset.shape(request) for request in loader.sampler] == [x["input_ids"].shape for x in batches]


@pytest.mark.slow
def test_records_decide_the_identity_of_what_is_predicted(module):
    one, other, same = (
        module(SequenceExamples(["no", "yes"]), [{"text": text, "label": "no"}] * 2).predict_identity()
        for text in ("ab", "ac", "ab")
    )
    assert one == same
    assert one["batch_size"] == other["batch_size"]
    assert one["records"] != other["records"]
