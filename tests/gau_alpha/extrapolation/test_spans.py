"""Which documents are measured at a length, and which span of each."""

import numpy as np
import pytest
import torch

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine, MaskedTokens, SingleMask
from gau_alpha.extrapolation.spans import EvaluationSpans
from gau_alpha.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=40, mask_id=1, pad_id=0, special_ids=(2, 3))


def documents(*num_tokens):
    return [np.random.default_rng(seed).integers(4, 40, size=count) for seed, count in enumerate(num_tokens)]


def spans(docs, lengths=(8, 32), protocol=None, left_out=(), **kwargs):
    options = EvaluationOptions(length_ratios=[length // 8 for length in lengths], **kwargs)
    return EvaluationSpans(docs, VOCABULARY, 8, options, protocol or MaskedTokens(), left_out)


def engine(docs, **kwargs):
    return ExtrapolationEngine(docs, VOCABULARY, 8, EvaluationOptions(**kwargs))


def test_first_spans_are_the_beginnings():
    docs = documents(40, 100)
    for document in (0, 1):
        assert spans(docs).tokens(document, 32).tolist() == docs[document][:32].tolist()


def test_spread_spans_lie_anywhere_and_are_a_function_of_seed_document_and_length():
    docs = [np.arange(100)] * 400
    starts = [int(spans(docs, span_position="spread").tokens(place, 32)[0]) for place in range(400)]
    assert min(starts) < 5
    assert max(starts) > 100 - 32 - 5
    assert max(starts) <= 100 - 32
    assert np.std(starts) == pytest.approx(69 / 12**0.5, rel=0.1), "evenly"
    again = spans(docs[:5], span_position="spread")
    assert [int(again.tokens(place, 32)[0]) for place in range(5)] == starts[:5]
    assert [int(again.tokens(place, 8)[0]) for place in range(5)] != starts[:5]
    other = spans(docs, span_position="spread", seed=1)
    assert [int(other.tokens(place, 32)[0]) for place in range(5)] != starts[:5]
    assert (again.tokens(0, 32) == np.arange(starts[0], starts[0] + 32)).all()


def test_aligned_spans_have_the_same_targets_and_grow_around_them():
    docs = documents(70, 31, 64, 90)
    one = engine(docs, length_ratios=[1, 2, 8], span_position="aligned")
    seen = {}
    for length in (8, 16, 64):
        examples = one.spans.examples(length)
        assert [each.document for each in examples] == [0, 2, 3], "only documents that have them all"
        input_ids, positions, labels = one.spans.batch(examples, length)
        start = (64 - length) // 2
        seen[length] = (positions + start).tolist(), labels.tolist()
        for row, each in zip(input_ids, examples, strict=True):
            expected = docs[each.document][start : start + length].copy()
            expected[each.positions] = VOCABULARY.mask_id
            assert row.tolist() == expected.tolist()
    assert seen[8] == seen[16] == seen[64]
    some = spans(docs, (8, 64), span_position="aligned", max_tokens=140)
    assert some.selected(8).tolist() == some.selected(64).tolist() == [0, 2]
    with pytest.raises(ValueError, match="longest of 4 has 90 tokens, 128 are needed"):
        engine(docs, length_ratios=[1, 16], span_position="aligned")
    with pytest.raises(ValueError, match="repeated text is none"):
        spans(docs, span_position="aligned", short_documents="repeat")


def test_repeated_documents_are_repeated_and_counted():
    docs = documents(5, 40, 12)
    one = spans(docs, short_documents="repeat")
    assert one.selected(32).tolist() == [0, 1, 2]
    assert one.tokens(0, 32).tolist() == (docs[0].tolist() * 7)[:32]
    assert (one.num_short(32), one.num_repeated(32)) == (0, 2)
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(40, 16, 24, 8, 1)).eval()
    rows = list(engine(docs, length_ratios=[1, 4], short_documents="repeat").evaluate(model, {"own": model.method}))
    assert [(row.num_documents, row.num_repeated_documents, row.num_short_documents) for row in rows] == [
        (3, 1, 0),
        (3, 2, 0),
    ]


def test_a_budget_of_tokens_takes_many_short_documents_and_few_long_ones():
    docs = documents(*[100] * 50)
    one = spans(docs, max_tokens=320)
    assert (len(one.selected(8)), len(one.selected(32))) == (40, 10)
    assert len(spans(docs, max_tokens=10).selected(32)) == 1, "never none"
    assert len(spans(docs, max_tokens=320, max_documents=4).selected(8)) == 4
    passes = spans(docs, max_tokens=320, protocol=SingleMask(4))
    assert (len(passes.selected(8)), len(passes.selected(32))) == (10, 2), "all passes are counted"


def test_documents_that_are_left_out_are_nowhere():
    docs = documents(40, 40, 40, 10)
    one = spans(docs, left_out=[1, 3])
    assert one.selected(32).tolist() == [0, 2]
    assert one.num_short(32) == 0
    with pytest.raises(ValueError, match=r"longest of 4 has 0 tokens.*4 are left out"):
        spans(docs, left_out=range(4))


def test_fingerprint_tells_documents_apart_and_not_those_that_are_not_read():
    docs = documents(40, 40, 5)
    first = spans(docs).fingerprint()
    assert spans([*docs[:2], docs[2][:4]]).fingerprint() == first
    changed = [docs[0].copy(), docs[1], docs[2]]
    changed[0][39] = 39 if docs[0][39] != 39 else 38
    assert spans(changed).fingerprint() != first
    assert spans(docs[1::-1]).fingerprint() != first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"span_position": "last"}, "'last' is unknown.*aligned"),
        ({"short_documents": "pad"}, "'pad' is unknown.*repeat"),
    ],
)
def test_unknown_choices_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        spans(documents(40), **wrong)


def test_aligned_curve_shows_context_alone():
    """A model that sees nothing of its context has the same loss at every length, to the last digit of float32."""
    docs = documents(64, 80, 70)
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(40, 16, 24, 8, 1, initializer_range=0.5)).eval()
    with torch.no_grad():
        model.gau_alpha.encoder.layer[0].gau.o_dense.weight.zero_()
    aligned = engine(docs, length_ratios=[1, 2, 8], span_position="aligned")
    losses = [row.loss for row in aligned.evaluate(model, {"own": model.method})]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    first = engine(docs, length_ratios=[1, 2, 8])
    assert len({round(row.loss, 4) for row in first.evaluate(model, {"own": model.method})}) == 3
