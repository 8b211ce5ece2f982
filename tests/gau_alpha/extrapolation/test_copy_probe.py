"""The protocol ``copy``: rows by hand, gains by plain loops, and models that see nothing, too little, or copy."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import datamodules
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.presets import resolve_method
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine, Status
from gau_alpha.extrapolation.evaluate_length import evaluate_length
from gau_alpha.extrapolation.protocols import CopyProbe
from gau_alpha.extrapolation.report import Report
from gau_alpha.extrapolation.report.documents import COLUMNS, parquet
from gau_alpha.extrapolation.statistics import resampled_ratios
from gau_alpha.scaling import InfoScale
from gau_alpha.visibility import Window
from gau_alpha.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=40, mask_id=1, pad_id=0, special_ids=(2, 3))
RATIOS = (1, 2, 3, 7)


def documents(*num_tokens):
    return [np.random.default_rng(seed).integers(4, 40, size=count) for seed, count in enumerate(num_tokens)]


def small_model(initializer_range=0.5, layers=2):
    torch.manual_seed(0)
    return GAUAlphaForMaskedLM(GAUAlphaConfig(40, 16, 24, 8, layers, initializer_range=initializer_range)).eval()


def build_engine(docs, train_length=64, **kwargs):
    options = EvaluationOptions(**{"length_ratios": RATIOS, "protocol": "copy", "num_resamples": 200, **kwargs})
    return ExtrapolationEngine(docs, VOCABULARY, train_length, options)


def rows_of(engine, ratio):
    examples = engine.spans.examples(64 * ratio)
    return examples, *engine.spans.batch(examples, 64 * ratio)


@pytest.mark.parametrize(("ratio", "distance"), [(1, 32), (2, 64), (3, 128), (7, 384)])
@pytest.mark.parametrize("span_position", ["first", "spread"])
def test_rows_are_as_the_guide_says(ratio, distance, span_position):
    docs = documents(500, 470, 455, 640)
    engine = build_engine(docs, span_position=span_position)
    length = 64 * ratio
    examples, input_ids, positions, labels = rows_of(engine, ratio)
    assert [(one.document, one.is_control) for one in examples] == [(d, c) for d in range(4) for c in (False, True)]
    texts = ["".join(map(chr, document)) for document in docs]
    for place in range(0, len(examples), 2):
        document = examples[place].document
        span = engine.spans.tokens(document, length)
        assert "".join(map(chr, span)) in texts[document]
        read, control = input_ids[place].copy(), input_ids[place + 1].copy()
        for row, hidden, label in zip((read, control), positions[place:], labels[place:], strict=False):
            assert len(set(hidden.tolist())) == 8
            assert all(distance <= at < distance + 32 for at in hidden), "in the later passage"
            assert (row[hidden] == VOCABULARY.mask_id).all()
            assert (row == VOCABULARY.mask_id).sum() == 8, "the earlier one is whole"
            row[hidden] = label
        assert positions[place].tolist() == positions[place + 1].tolist()
        assert read[32:].tolist() == control[32:].tolist() == span[32:].tolist()
        assert read[:32].tolist() == span[distance : distance + 32].tolist()
        (found,) = [other for other, text in enumerate(texts) if "".join(map(chr, control[:32])) in text]
        assert found != document, "text of another document"


def test_passages_are_a_function_of_seed_document_and_length():
    docs = documents(*[460] * 60)
    _, input_ids, positions, _ = rows_of(build_engine(docs), 3)
    for same in (build_engine(docs), build_engine(docs, max_documents=30), build_engine(docs, length_ratios=[3])):
        _, again, placed, _ = rows_of(same, 3)
        assert again.tolist() == input_ids[: len(again)].tolist()
        assert placed.tolist() == positions[: len(again)].tolist()
    _, others, elsewhere, _ = rows_of(build_engine(docs, seed=1), 3)
    assert (others[1::2, :32] != input_ids[1::2, :32]).any(1).all(), "other text"
    assert (elsewhere != positions).any(1).mean() > 0.9
    counts = np.bincount(positions[::2].flatten() - 128, minlength=32)
    assert counts.min() > 0, "any token of the passage may be hidden"
    assert counts.max() < 60 * 8 / 32 * 3


def test_special_tokens_are_never_hidden_and_a_passage_without_others_is_left_out():
    docs = documents(64, 64, 64)
    docs[0][32:] = 3
    docs[0][40:45] = 9
    docs[1][32:] = 2
    examples, _, positions, labels = rows_of(build_engine(docs, length_ratios=[1]), 1)
    assert [one.document for one in examples] == [0, 0, 2, 2]
    assert sorted(set(positions[0].tolist())) == [40, 41, 42, 43, 44]
    assert set(labels[0].tolist()) == {9}
    result = next(build_engine(docs, length_ratios=[1]).evaluate(small_model(), {"own": AttentionMethod()}))
    assert (result.num_documents, result.num_targets) == (2, 5 + 8)


def losses_by_hand(model, engine, ratio):
    """(documents, 2) summed loss with the passage and with other text, row by row."""
    _, input_ids, positions, labels = rows_of(engine, ratio)
    found = []
    for row, hidden, label in zip(input_ids, positions, labels, strict=True):
        with torch.no_grad():
            logits = model(torch.from_numpy(row)[None])[0].double()[torch.from_numpy(hidden)]
        found.append(float(F.cross_entropy(logits, torch.from_numpy(label), reduction="sum")))
    return np.array(found).reshape(-1, 2)


def test_gain_is_what_plain_loops_give():
    docs = documents(*range(460, 472))
    engine, model = build_engine(docs), small_model()
    other = AttentionMethod(scaling=InfoScale(64))
    rows = list(engine.evaluate(model, {"own": model.method, "infoscale": other}))
    for ratio, distance in zip(RATIOS, (32, 64, 128, 384), strict=True):
        own, infoscale = (row for row in rows if row.length_ratio == ratio)
        by_hand = losses_by_hand(model, engine, ratio)
        gains = by_hand[:, 1] - by_hand[:, 0]
        targets = np.full(12, 8.0)
        low, high = np.quantile(resampled_ratios(gains, targets, 200, 0), [0.025, 0.975])
        assert own.gain == pytest.approx(gains.sum() / 96, abs=1e-5)
        assert own.loss == pytest.approx(by_hand[:, 0].sum() / 96, abs=1e-5)
        assert (own.gain_low, own.gain_high) == pytest.approx((low, high), abs=1e-5)
        assert (own.num_targets, own.num_documents, own.distance, own.protocol) == (96, 12, distance, "copy")
        with model.using(other):
            theirs = losses_by_hand(model, engine, ratio)
        assert infoscale.gain_difference == pytest.approx(infoscale.gain - own.gain, abs=1e-12)
        paired = theirs[:, 1] - theirs[:, 0] - gains
        low, high = np.quantile(resampled_ratios(paired, targets, 200, 0), [0.025, 0.975])
        assert (infoscale.gain_difference_low, infoscale.gain_difference_high) == pytest.approx((low, high), abs=1e-5)
        assert own.attention_entropy is None, "attention is looked at in text as it was written"


def per_document_gains(model, engine, ratio):
    """(documents,) gain per target."""
    from gau_alpha.extrapolation.candidates import Candidate
    from gau_alpha.extrapolation.distributed import Ranks

    length = 64 * ratio
    candidate = Candidate("own", model, model.method)
    ranks = Ranks(torch.device("cpu"))
    sums = evaluate_length(candidate, engine.spans.examples(length), length, engine.spans, ranks, lambda share: None)
    return sums.gain / sums.targets


@pytest.mark.parametrize("initializer_range", [0.02, 0.5])
def test_an_untrained_model_gains_nothing_at_any_distance(initializer_range):
    engine, model = build_engine(documents(*[460] * 100)), small_model(initializer_range)
    for ratio in RATIOS:
        gains = per_document_gains(model, engine, ratio)
        error = gains.std(ddof=1) / math.sqrt(len(gains))
        assert error > 0
        assert abs(gains.mean()) < 3.39 * error, "within the 99.9 % interval around 0 (Student, 99 degrees)"


def test_windows_gain_exactly_nothing_beyond_the_reach_of_their_layers():
    """Two layers of radius 20: a hidden token hears of keys up to 40 tokens away, in batches of several rows."""
    docs = documents(*[460] * 7)
    model = small_model()
    engine = build_engine(docs, tokens_per_batch=64 * 7 * 2)
    rows = list(engine.evaluate(model, {"full": model.method, "windowed": model.method.replace(visibility=Window(20))}))
    found = {(row.method, row.distance): row for row in rows}
    assert abs(found["windowed", 32].gain) > 1e-3, "the earlier passage is within reach"
    for distance in (128, 384):
        row = found["windowed", distance]
        assert (row.gain, row.gain_low, row.gain_high) == (0, 0, 0)
        assert abs(found["full", distance].gain) > 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_documents": "repeat"}, "short_documents='repeat'.*Take 'skip'"),
        ({"span_position": "aligned"}, "span_position='aligned'.*Take 'first' or 'spread'"),
        ({"positions_per_document": 4}, "positions_per_document belongs to the protocol single-mask; copy has its own"),
        ({"docs": documents(500)}, "1 of them has the 32 tokens.*two documents or more"),
        ({"train_length": 63}, "train_length is 63, and must be at least 64"),
    ],
)
def test_what_can_not_be_probed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_engine(**({"docs": documents(500, 500)} | options))


def test_sizes_of_a_probe_are_checked():
    with pytest.raises(ValueError, match="num_hidden must be at most 4, got 5"):
        CopyProbe(64, passage_length=4, num_hidden=5)
    options = EvaluationOptions(length_ratios=[1])
    probe = CopyProbe(8, passage_length=4, num_hidden=2)
    engine = ExtrapolationEngine(documents(20, 20), VOCABULARY, 8, options, protocol=probe)
    assert next(engine.evaluate(small_model(), {"own": AttentionMethod()})).num_targets == 4


def test_distances_unless_others_are_named():
    assert EvaluationOptions(protocol="copy").ratios == (1, 2, 3, 7, 15, 31, 63)
    assert EvaluationOptions().ratios == (1, 2, 4, 8, 16, 32, 64)


def test_not_finite_where_only_the_control_is():
    class Failing(GAUAlphaForMaskedLM):
        calls = 0

        def forward(self, *args, **kwargs):
            self.calls += 1
            return super().forward(*args, **kwargs) * (math.nan if self.calls == 2 else 1)

    model = Failing(GAUAlphaConfig(40, 16, 24, 8, 1))
    engine = build_engine(documents(64, 64), length_ratios=[1])
    assert next(engine.evaluate(model, {"own": model.method})).status is Status.NOT_FINITE


# ---- what is written ----


@pytest.fixture
def report():
    docs = documents(*[260] * 12)
    model = small_model()
    methods = {"own": model.method, "windowed": model.method.replace(visibility=Window(20))}
    rows = []
    for protocol, ratios in (("mlm", [1, 4]), ("copy", [1, 3])):
        rows += build_engine(docs, protocol=protocol, length_ratios=ratios).evaluate(model, methods)
    return Report(rows)


def test_each_protocol_has_a_table_of_its_own(report, tmp_path):
    mlm, copy = report.tables
    assert ([row.protocol for row in mlm.rows], [row.protocol for row in copy.rows]) == (["mlm"] * 4, ["copy"] * 4)
    assert [copy.heading(length) for length in copy.lengths] == ["32 (0.5×)", "128 (2×)"]
    assert copy.cell("windowed", 192) == "0"
    page, text = report.html(), report.markdown()
    for written in (page, text, report.latex()):
        assert "Protocol mlm" in written.replace("\\_", "_")
        assert "Protocol copy" in written
        assert "128 (2×)" in written.replace("$\\times$", "×")
    assert "<h2>Gain</h2>" in page
    assert "<h2>Gain minus that of own</h2>" in page
    headings = [block.splitlines()[0] for block in text.split("\n\n") if block.startswith("| method")]
    assert [("gain" in one, "exact" in one) for one in headings] == [(False, False)] * 2 + [
        (False, False),
        (True, False),
    ]
    figure = report.figure()
    first, second = figure.axes
    assert (first.get_yscale(), second.get_yscale(), second.get_xscale()) == ("log", "linear", "log")
    assert second.get_lines()[0].get_xdata().tolist() == [32, 128]
    assert second.get_lines()[0].get_ydata().tolist() == [copy.row("own", length).gain for length in (64, 192)]
    report.write(tmp_path)
    assert list(Report.read(tmp_path / "extrapolation.json").rows) == list(report.rows)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "extrapolation.csv").read_text())))
    assert [line["gain"] != "" for line in lines] == [False] * 4 + [True] * 4
    assert json.loads(report.json())["rows"][-1]["distance"] == 128
    assert report.image().shape[2] == 3


def test_figures_of_documents_give_the_numbers_of_the_report(report, tmp_path):
    report.write(tmp_path)
    table = pd.read_parquet(tmp_path / "extrapolation.documents.parquet")
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 8 * 12
    assert table[table.protocol == "mlm"].control_loss.isna().all()
    for row in report.rows:
        mine = table[(table.protocol == row.protocol) & (table.method == row.method) & (table.length == row.length)]
        assert mine.document.tolist() == list(range(12))
        assert mine.targets.sum() == mine.positions.sum() == row.num_targets
        assert mine.loss.sum() / row.num_targets == row.loss
        assert mine.correct.sum() / row.num_targets == row.accuracy
        if row.protocol == "copy":
            assert (mine.control_loss - mine.loss).sum() / row.num_targets == pytest.approx(row.gain, abs=1e-12)
    read = Report.read(tmp_path / "extrapolation.json")
    assert all(row.documents is None for row in read.rows)
    assert not [path for path in read.write(tmp_path / "again") if path.suffix == ".parquet"]


def test_documents_whose_loss_is_not_finite_have_none_and_others_stay():
    docs = documents(64, 64, 64)
    docs[1][:] = 39  # the one document with this token

    class Failing(GAUAlphaForMaskedLM):
        def forward(self, input_ids, **kwargs):
            return super().forward(input_ids, **kwargs).where((input_ids != 39).all(), math.nan)

    model = Failing(GAUAlphaConfig(40, 16, 24, 8, 1))
    docs[0][docs[0] == 39] = docs[2][docs[2] == 39] = 5
    engine = build_engine(docs, protocol="mlm", length_ratios=[1], tokens_per_batch=64)
    rows = list(engine.evaluate(model, {"own": model.method}))
    assert rows[0].status is Status.NOT_FINITE
    assert pd.read_parquet(io.BytesIO(parquet(rows))).loss.isna().tolist() == [False, True, False]


def test_the_best_gain_is_the_highest(report):
    _, copy = report.tables
    rows = [replace(row, gain=place / 10) for place, row in enumerate(copy.rows)]
    better = Report(rows).tables[0]
    assert [better.is_best(row) for row in rows] == [False, True, False, True]


# ---- a model that copies ----


@pytest.fixture(scope="module")
def copying(slow):
    """Trained for 300 steps on letters that repeat after half a row, and rows of letters that do not."""
    tokenizer = datamodules.ByteTokenizer()
    vocabulary = tokenizer.vocabulary
    trained_on = datamodules.Synthetic("copy", distance=32, length=64, num_documents=300 * 32)
    rows = torch.tensor(np.stack(tokenizer.encode_batch(list(trained_on.documents()))), dtype=torch.int64)
    torch.manual_seed(0)
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(vocabulary.size, 64, 128, 32, 2, initializer_range=0.1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(300):
        batch = rows[32 * step : 32 * step + 32, :64]  # (B, L)
        hidden = torch.rand(batch.shape) < 0.15
        logits = model(batch.masked_fill(hidden, vocabulary.mask_id))
        loss = F.cross_entropy(logits[hidden], batch[hidden])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    other = datamodules.Synthetic("copy", distance=4000, length=4001, num_documents=40, seed=1)
    return model.eval(), tokenizer.encode_batch(list(other.documents())), vocabulary


def test_a_model_that_copies_gains_within_its_training_length_and_windows_nothing_beyond_their_reach(copying):
    model, docs, vocabulary = copying
    options = EvaluationOptions(length_ratios=[1, 3, 7], protocol="copy")
    engine = ExtrapolationEngine(docs, vocabulary, 64, options)
    methods = {name: resolve_method(name, model.method, 64) for name in ("trained", "windowed")}
    found = {(row.method, row.distance): row for row in engine.evaluate(model, methods)}
    assert found["trained", 32].gain_low > 0.5, "nats, of ln 26 = 3.3"
    assert found["windowed", 32].gain_low > 0.5
    for distance in (128, 384):
        assert (found["windowed", distance].gain_low, found["windowed", distance].gain_high) == (0, 0)
        assert found["trained", distance].gain != 0
