"""The protocol ``recall``: rows by hand, and a model that finds what is near."""

import math

import numpy as np
import pytest
import torch

import datamodules
from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine
from gau_alpha.extrapolation.report import Report

TOKENIZER = datamodules.ByteTokenizer()


def texts(count=20, length=500, seed=1, **more):
    return list(datamodules.Synthetic("recall", length=length, num_documents=count, seed=seed, **more).documents())


def build_engine(documents, ratios=(1, 2, 3, 7), **options):
    asked = EvaluationOptions(length_ratios=ratios, protocol="recall", **options)
    return ExtrapolationEngine(TOKENIZER.encode_batch(documents), TOKENIZER.vocabulary, 64, asked)


@pytest.mark.parametrize(("ratio", "distance"), [(1, 30), (2, 60), (3, 126), (7, 384)])
def test_questions_are_answered_so_far_before_and_nowhere_else(ratio, distance):
    engine = build_engine(texts(length=64 * ratio))
    examples = engine.spans.examples(64 * ratio)
    assert len(examples) == 2 * 20
    input_ids, positions, labels = engine.spans.batch(examples, 64 * ratio)
    for place in range(0, 40, 2):
        assert [one.is_control for one in examples[place : place + 2]] == [False, True]
        rows = []
        for row, hidden, label in zip(input_ids[place:], positions[place:], labels[place : place + 2], strict=False):
            assert sorted(hidden - distance) == [6 * number + at for number in range(5) for at in (3, 4)]
            assert np.flatnonzero(row == TOKENIZER.vocabulary.mask_id).tolist() == hidden.tolist()
            whole = row.copy()
            whole[hidden] = label
            text = TOKENIZER.decode(whole)
            rows.append([text[start : start + 6] for start in range(0, len(text) - 5, 6)])
            assert all(record[2] == "=" and record[5] == " " for record in rows[-1])
        read, control = rows
        questions = read[distance // 6 : distance // 6 + 5]
        keys = [record[:2] for record in questions]
        assert len(set(keys)) == 5
        assert read[:5] == questions
        assert read[5:] == control[5:]
        elsewhere = [record[:2] for number, record in enumerate(read) if number >= 5 and record not in questions]
        assert not set(keys) & {*elsewhere, *(record[:2] for record in control[:5])}
    other = build_engine(texts(length=64 * ratio), (ratio,), seed=1).spans
    assert not (other.batch(other.examples(64 * ratio), 64 * ratio)[2] == labels).all()


@pytest.mark.parametrize("documents", [["print(1)\n" * 60] * 3, [" " + text for text in texts(3)], ["ab=ab " * 80] * 2])
def test_other_texts_are_refused(documents):
    engine = build_engine(documents)
    with pytest.raises(ValueError, match=r"recall is for texts of datamodules\.Synthetic.* document 0 is none"):
        engine.spans.examples(64)


class Finding(GAUAlphaForMaskedLM):
    """Looks up the value of a key among the records that begin at most ``reach`` tokens away."""

    reach = 200

    def forward(self, input_ids, target_positions=None, **kwargs):
        logits = torch.zeros(*target_positions.shape, self.config.vocab_size)  # (B, T, V)
        for row, places in enumerate(target_positions.tolist()):
            ids = input_ids[row].tolist()
            for number, place in enumerate(places):
                start = place // 6 * 6
                for other in range(0, len(ids) - 5, 6):
                    within = other != start and abs(other - start) <= self.reach
                    if within and ids[other : other + 2] == ids[start : start + 2]:
                        logits[row, number, ids[other + place - start]] = 20.0
        return logits


def test_accuracy_against_distance():
    """Of a model that finds what is within its reach, and predicts nothing beyond."""
    model = Finding(GAUAlphaConfig(TOKENIZER.vocabulary.size, 16, 24, 8, 1))
    report = Report(list(build_engine(texts()).evaluate(model, {"own": model.method})))
    found = {row.distance: row for row in report.rows}
    assert list(found) == [30, 60, 126, 384]
    for distance in (30, 60, 126):
        assert (found[distance].accuracy, found[distance].accuracy_low, found[distance].num_targets) == (1, 1, 200)
        assert found[distance].gain == pytest.approx(math.log(TOKENIZER.vocabulary.size), rel=1e-4)
    assert (found[384].accuracy, found[384].gain) == (0, 0)
    (table,) = report.tables
    assert (table.measure, table.heading(64)) == ("accuracy", "30 (0.469×)")
    assert [table.cell("own", length) for length in table.lengths] == ["100.0%"] * 3 + ["0.0%"]
    page = report.html()
    assert "<h2>Accuracy</h2>" in page
    assert "accuracy at the values of questions" in page
    assert len(report.figure().axes) == 1


def test_the_highest_accuracy_is_the_best():
    rows = []
    for name, reach in (("near", 40), ("far", 500)):
        model = Finding(GAUAlphaConfig(TOKENIZER.vocabulary.size, 16, 24, 8, 1))
        model.reach = reach
        rows += build_engine(texts(), (3,)).evaluate(model, {name: model.method})
    (table,) = Report(rows).tables
    assert [table.is_best(row) for row in rows] == [False, True]
