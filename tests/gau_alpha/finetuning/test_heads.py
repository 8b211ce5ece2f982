"""Heads for fine-tuning: what they compute, what they ignore, and how they are kept in folders."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from strategy_cases import CASES, TRAIN_LENGTH

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaFineTuning, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.finetuning import (
    GAUAlphaForMultipleChoice,
    GAUAlphaForQuestionAnswering,
    GAUAlphaForSequenceClassification,
    GAUAlphaForTokenClassification,
)
from gau_alpha.finetuning.module import TaskMetrics
from gau_alpha.scaling import LogLength
from gau_alpha.similarity import CosScale
from gau_alpha.training.pooling import first_token, mean_token

CONFIG = GAUAlphaConfig(30, 16, 24, 8, 2, initializer_range=0.3)
LABELS = ("no", "yes", "maybe")
HEADS = {
    GAUAlphaForSequenceClassification: LABELS,
    GAUAlphaForTokenClassification: LABELS,
    GAUAlphaForMultipleChoice: (),
    GAUAlphaForQuestionAnswering: (),
}
NAMES = {
    GAUAlphaForSequenceClassification: {"classifier.weight": (3, 16), "classifier.bias": (3,)},
    GAUAlphaForTokenClassification: {"classifier.weight": (3, 16), "classifier.bias": (3,)},
    GAUAlphaForMultipleChoice: {"classifier.weight": (1, 16), "classifier.bias": (1,)},
    GAUAlphaForQuestionAnswering: {"qa_outputs.weight": (2, 16), "qa_outputs.bias": (2,)},
}


def build(cls, method=None, **arguments):
    torch.manual_seed(1)
    return cls(CONFIG, method, labels=HEADS[cls], **arguments).eval()


def batch_of(cls, length=9, rows=2):
    """Full rows with labels."""
    shape = (rows, 3, length) if cls is GAUAlphaForMultipleChoice else (rows, length)
    ids = torch.randint(1, 30, shape)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    batch["token_type_ids"][..., length // 2 :] = 1
    batch["sample_ids"] = torch.arange(rows)
    if cls is GAUAlphaForTokenClassification:
        batch["labels"] = torch.randint(0, 3, shape)
    elif cls is GAUAlphaForQuestionAnswering:
        batch["labels"] = torch.tensor([[1, 3], [length - 2, length - 1]])[:rows]
    else:
        batch["labels"] = torch.randint(0, 3, (rows,))
    return batch


def padded(cls, batch, more=5):
    """The same rows with padding behind them."""
    wide = {}
    for name, x in batch.items():
        fill = -100 if name == "labels" else 0
        is_per_token = x.shape == batch["input_ids"].shape
        wide[name] = torch.nn.functional.pad(x, (0, more), value=fill) if is_per_token else x
    if cls is GAUAlphaForMultipleChoice:
        wide = {name: torch.nn.functional.pad(x, (0, 0, 0, 1)) if x.ndim == 3 else x for name, x in wide.items()}
        wide["choice_mask"] = torch.tensor([[1, 1, 1, 0]] * len(batch["input_ids"]))
    return wide


@pytest.mark.parametrize("cls", HEADS)
def test_the_loss_is_that_of_a_loop_in_float64(cls):
    model, batch = build(cls), batch_of(cls)
    with torch.no_grad():
        outcome = model.evaluate(batch)
        logits = model(**{name: x for name, x in batch.items() if name not in ("labels", "sample_ids")}).double()
    expected, count = 0.0, 0

    def nll(scores, right):
        return math.log(sum(math.exp(s) for s in scores)) - scores[right]

    for row, labels in zip(logits.tolist(), batch["labels"].tolist(), strict=True):
        if cls is GAUAlphaForTokenClassification:
            expected += sum(nll(scores, label) for scores, label in zip(row, labels, strict=True))
            count += len(labels)
        elif cls is GAUAlphaForQuestionAnswering:
            starts, ends = [token[0] for token in row], [token[1] for token in row]
            expected += (nll(starts, labels[0]) + nll(ends, labels[1])) / 2
            count += 1
        else:
            expected += nll(row, labels)
            count += 1
    assert outcome.nll.item() == pytest.approx(expected, abs=1e-5)
    assert outcome.count == count


def test_what_a_head_makes_of_hidden_states():
    """Each head is a linear map of the encoder's output: by hand."""
    for cls in HEADS:
        model, batch = build(cls), batch_of(cls)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.no_grad():
            logits = model(**inputs)
            flat = {name: x.reshape(-1, x.shape[-1]) for name, x in inputs.items()}
            hidden = model.encode(flat["input_ids"], token_type_ids=flat["token_type_ids"])
            last = model.qa_outputs if cls is GAUAlphaForQuestionAnswering else model.classifier
            by_token = cls in (GAUAlphaForTokenClassification, GAUAlphaForQuestionAnswering)
            expected = (hidden if by_token else hidden[:, 0]) @ last.weight.T + last.bias
        torch.testing.assert_close(logits, expected.reshape(logits.shape), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("cls", HEADS)
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_changes_nothing(cls, pooling):
    if "pooling" not in cls.own_arguments and pooling == "mean":
        pooling = None  # tested once
    model = build(cls, **({"pooling": pooling} if "pooling" in cls.own_arguments else {}))
    batch = batch_of(cls)
    wide = padded(cls, batch)
    assert wide["input_ids"].shape != batch["input_ids"].shape
    with torch.no_grad():
        plain, other = model.evaluate(batch), model.evaluate(wide)
        left, right = model.predict(batch), model.predict(wide)
    torch.testing.assert_close(other.nll, plain.nll, atol=1e-5, rtol=0)
    assert other.count == plain.count
    assert torch.equal(other.predicted, plain.predicted)
    assert torch.equal(other.targets, plain.targets)
    for name in left:
        width = left[name].shape[-1] if left[name].ndim > 1 else None
        torch.testing.assert_close(right[name][..., :width] if width else right[name], left[name], atol=1e-5, rtol=0)
    if cls is GAUAlphaForTokenClassification:
        assert (right["label"][:, 9:] == -100).all()


@pytest.mark.parametrize("cls", HEADS)
def test_a_row_without_a_label_weighs_nothing(cls):
    """As it fills up the batch of a rank that has no row left: all padding, no choice, no answer."""
    model, batch = build(cls), batch_of(cls)
    blank = {name: torch.zeros_like(x[:1]) for name, x in padded(cls, batch, 0).items()}
    blank["labels"] = torch.full_like(batch["labels"][:1], -100)
    outcome = model.evaluate(blank)
    assert outcome.nll.item() == 0
    assert outcome.count == 0
    assert len(outcome.predicted) == len(outcome.targets) == 0
    outcome.nll.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients)


def test_ignored_tokens_do_not_count():
    model, batch = build(GAUAlphaForTokenClassification), batch_of(GAUAlphaForTokenClassification)
    batch["labels"][0, 2:] = -100
    batch["labels"][1] = -100
    outcome = model.evaluate(batch)
    assert outcome.count == 2
    batch["labels"][0, 1] = -100
    one = model.evaluate(batch)
    logits = model(batch["input_ids"], token_type_ids=batch["token_type_ids"])[0, 0]
    assert one.nll.item() == pytest.approx(-logits.log_softmax(-1)[batch["labels"][0, 0]].item(), abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_rows_longer_than_the_training_length_work_under_every_method(name):
    """And padding changes nothing there either."""
    for cls in HEADS:
        model = build(cls, CASES[name].method)
        batch = batch_of(cls, 5 * TRAIN_LENGTH)
        with torch.no_grad():
            plain, other = model.evaluate(batch), model.evaluate(padded(cls, batch))
        assert plain.nll.isfinite()
        torch.testing.assert_close(other.nll, plain.nll, atol=2e-5, rtol=1e-5)


def test_poolings():
    x = torch.arange(24.0).view(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert first_token(x, mask).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert mean_token(x, mask).tolist() == [[2, 3, 4, 5], [0, 0, 0, 0]]
    assert mean_token(x).tolist() == x.mean(1).tolist()
    x[0, 2] = torch.nan  # whatever stands on padding
    assert mean_token(x, mask).tolist() == [[2, 3, 4, 5], [0, 0, 0, 0]]


def test_the_best_span_is_that_of_a_double_loop():
    model = build(GAUAlphaForQuestionAnswering, longest_answer=4)
    logits = torch.randn(50, 12, 2)
    logits[:, 9:] = -torch.inf
    for row, span in zip(logits.tolist(), model.best_spans(logits).tolist(), strict=True):
        pairs = [(i, j) for i in range(9) for j in range(i, min(i + 4, 9))]
        assert tuple(span) == max(pairs, key=lambda pair: row[pair[0]][0] + row[pair[1]][1])


def test_an_answer_lies_where_it_may():
    model, batch = build(GAUAlphaForQuestionAnswering), batch_of(GAUAlphaForQuestionAnswering, 12)
    batch["answerable"] = torch.zeros_like(batch["input_ids"])
    batch["answerable"][:, 4:7] = 1
    batch["offsets"] = torch.stack([torch.arange(12) * 10, torch.arange(12) * 10 + 7], -1).expand(2, -1, -1)
    found = model.predict(batch)
    assert found["span"].min() >= 4
    assert found["span"].max() <= 6
    assert torch.equal(found["start"], found["span"][:, 0] * 10)
    assert torch.equal(found["stop"], found["span"][:, 1] * 10 + 7)


def test_metrics_are_counts_over_all_targets():
    model = build(GAUAlphaForSequenceClassification)
    metrics = TaskMetrics(dict(model.metrics().items()), "test/")
    # 3 of 4 right, then 0 of 1: 3/5, and not the mean 3/8 of the batches
    metrics.add(torch.tensor(4.0), (torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 1])), torch.tensor(4))
    metrics.add(torch.tensor(1.0), (torch.tensor([2]), torch.tensor([1])), torch.tensor(1))
    metrics.add(torch.tensor(0.0), (torch.tensor([], dtype=torch.int64),) * 2, torch.tensor(0))
    values = metrics.compute()
    assert values["test/accuracy"].item() == pytest.approx(3 / 5)
    assert values["test/loss"].item() == 1
    # no: P 1/2, R 1; yes: P 1, R 1/3; maybe: P 1/2, R 1
    assert values["test/f1"].item() == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)


def test_span_metrics():
    metrics = build(GAUAlphaForQuestionAnswering).metrics()
    predicted, right = torch.tensor([[1, 2], [3, 6], [0, 0]]), torch.tensor([[1, 2], [5, 8], [1, 1]])
    metrics.update(predicted[:1], right[:1])
    metrics.update(predicted[1:], right[1:])
    assert metrics.compute()["exact_match"] == 1 / 3
    assert metrics.compute()["f1"].item() == pytest.approx((1 + 2 * 2 / 8 + 0) / 3)


@pytest.mark.parametrize("cls", HEADS)
def test_a_folder_keeps_the_head(cls, tmp_path):
    model = build(cls, AttentionMethod(CosScale(8), LogLength(512)))
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {n: tuple(x.shape) for n, x in stored.items() if not n.startswith("gau_alpha.")} == NAMES[cls]
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["architectures"] == [cls.__name__]
    if HEADS[cls]:
        assert fields["id2label"] == {"0": "no", "1": "yes", "2": "maybe"}
    again = cls.from_pretrained(tmp_path)
    batch = batch_of(cls)
    assert torch.equal(again.evaluate(batch).nll, model.evaluate(batch).nll)
    assert again.labels == model.labels
    assert again.describe_head() == model.describe_head()
    assert again.method.describe() == model.method.describe()
    for other in set(HEADS) - {cls}:
        with pytest.raises(ValueError, match=f"holds a {cls.__name__}"):
            other.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="left over"):
        GAUAlphaForMaskedLM.from_pretrained(tmp_path)


def test_own_arguments_come_from_the_folder(tmp_path):
    build(GAUAlphaForSequenceClassification, pooling="mean", classifier_dropout=0.25).save_pretrained(tmp_path)
    assert GAUAlphaForSequenceClassification.from_pretrained(tmp_path).pooling == "mean"
    fields = json.loads((tmp_path / "config.json").read_text())
    assert (fields["summary_type"], fields["classifier_dropout"]) == ("mean", 0.25)
    del fields["head"]  # as other software writes it
    (tmp_path / "config.json").write_text(json.dumps(fields))
    again = GAUAlphaForSequenceClassification.from_pretrained(tmp_path)
    assert (again.pooling, again.classifier_dropout) == ("mean", 0.25)
    with pytest.raises(ValueError, match="pooling is 'last'"):
        GAUAlphaForSequenceClassification.from_pretrained(tmp_path, pooling="last")


@pytest.mark.parametrize("cls", HEADS)
def test_a_head_that_the_folder_lacks_is_drawn_and_named(cls, tmp_path):
    base = GAUAlphaForMaskedLM(replace(CONFIG, num_hidden_layers=3, tie_word_embeddings=False))
    base.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="start as new") as caught:
        model = cls.from_pretrained(tmp_path, num_hidden_layers=2, labels=HEADS[cls] or None)
    (message,) = [str(one.message) for one in caught if "start as new" in str(one.message)]
    assert all(name in message for name in (*NAMES[cls], "cls.predictions.decoder.weight"))
    own, whole = model.state_dict(), base.state_dict()
    assert all(torch.equal(own[name], whole[name]) for name in own if name.startswith("gau_alpha."))
    weight = next(own[name] for name in NAMES[cls] if name.endswith("weight"))
    assert 0.1 < weight.std() < 0.6  # drawn with the config's 0.3
    assert not any(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id2label": {"0": "no", "2": "yes"}}, "must count 0, 1, 2"),
        ({"id2label": {"zero": "no"}}, "id2label must give a label per number"),
        ({"label2id": {"no": 2, "yes": 1, "maybe": 0}}, "contradicts itself: id2label"),
        ({"num_labels": 2}, "num_labels 2, but id2label names 3"),
        ({"classifier_dropout": 0.5}, "classifier_dropout is 0.5, but head says"),
        ({"head": {"init_args": 3}}, "head must give a class_path and init_args"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": None, "num_labels": None}, "of another shape: classifier"),
    ],
)
def test_contradictions_about_the_head_are_named(tmp_path, change, words):
    build(GAUAlphaForSequenceClassification).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        GAUAlphaForSequenceClassification.from_pretrained(tmp_path)


def test_labels_of_a_trained_head(tmp_path):
    build(GAUAlphaForSequenceClassification).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"trained to choose from \['no', 'yes', 'maybe'\], not from \['x', 'y'\]"):
        GAUAlphaForSequenceClassification.from_pretrained(tmp_path, labels=["x", "y"])
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({n: x for n, x in fields.items() if n not in ("id2label", "label2id")}))
    assert GAUAlphaForSequenceClassification.from_pretrained(tmp_path).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    ("cls", "arguments", "words"),
    [
        (GAUAlphaForSequenceClassification, {"labels": ["a"]}, "2 or more different"),
        (GAUAlphaForTokenClassification, {"labels": ["a", "a"]}, "2 or more different"),
        (GAUAlphaForSequenceClassification, {"labels": LABELS, "pooling": "max"}, "first, mean"),
        (GAUAlphaForMultipleChoice, {"labels": LABELS}, "by number"),
        (GAUAlphaForQuestionAnswering, {"labels": LABELS}, "is a span"),
        (GAUAlphaForQuestionAnswering, {"longest_answer": 0}, "at least 1"),
    ],
)
def test_mistakes(cls, arguments, words):
    with pytest.raises(ValueError, match=words):
        cls(CONFIG, **arguments)


def module(head, labels=(), **arguments):
    return GAUAlphaFineTuning(CONFIG, 16, head, labels, **arguments)


def saved(module, path):
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    return path


def test_a_checkpoint_is_plain_data_and_opens_again(tmp_path):
    torch.manual_seed(3)
    first = module(lambda *shared: GAUAlphaForSequenceClassification(*shared, pooling="mean"), LABELS)
    path = saved(first, tmp_path / "first.ckpt")
    again = GAUAlphaFineTuning.load_from_checkpoint(path)
    assert again.model.pooling == "mean"
    assert again.model.labels == LABELS
    own, other = first.state_dict(), again.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)
    with pytest.raises(ValueError, match=r"head .*GAUAlphaForSequenceClassification.* predicts no hidden tokens"):
        GAUAlphaModule.load_from_checkpoint(path)
    plain = saved(GAUAlphaModule(CONFIG, 16), tmp_path / "plain.ckpt")
    with pytest.raises(ValueError, match="masked language model"):
        GAUAlphaFineTuning.load_from_checkpoint(plain)


@pytest.mark.parametrize("kind", ["folder", "checkpoint"])
def test_training_starts_from_the_same_head_or_from_the_encoder_alone(tmp_path, kind, recwarn):
    torch.manual_seed(4)
    first = module(GAUAlphaForSequenceClassification, LABELS)
    torch.nn.init.ones_(first.model.classifier.bias)
    source = tmp_path / "first"
    if kind == "folder":
        first.model.save_pretrained(source)
    else:
        saved(first, source)
    same = module(GAUAlphaForSequenceClassification, LABELS, init_from=str(source))
    assert all(torch.equal(x, first.state_dict()[name]) for name, x in same.state_dict().items())
    assert not [one for one in recwarn if "start as new" in str(one.message)]
    for head, labels in (
        (GAUAlphaForSequenceClassification, ("no", "maybe", "yes")),  # the same number of others
        (GAUAlphaForTokenClassification, LABELS),  # the same names of tensors
        (GAUAlphaForQuestionAnswering, ()),
    ):
        with pytest.warns(UserWarning, match=r"start as new, drawn at random; classifier.bias, classifier.weight are"):
            other = module(head, labels, init_from=str(source))
        for name, x in other.state_dict().items():
            there = first.state_dict().get(name)
            assert (there is not None and torch.equal(x, there)) == ("gau_alpha." in name), name


def test_a_start_of_another_size_is_named(tmp_path):
    GAUAlphaForMaskedLM(replace(CONFIG, hidden_size=32)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="hidden_size is 32 there and 16 here"):
        module(GAUAlphaForQuestionAnswering, init_from=str(tmp_path))
