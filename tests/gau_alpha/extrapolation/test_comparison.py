"""Candidates side by side: several models, a named baseline, interruptions, a time budget."""

import json
import math
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from process_harness import holding

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import Candidate, EvaluationOptions, ExtrapolationEngine, ResultCache, Status
from gau_alpha.extrapolation.candidates import LoadedCheckpoint, expand_methods
from gau_alpha.extrapolation.result_cache import claimed
from gau_alpha.scaling import InfoScale
from gau_alpha.similarity import CosScale
from gau_alpha.vocabulary import Vocabulary

UNTIMED = {"seconds": None, "tokens_per_second": None, "peak_memory_bytes": None}


class Counting(GAUAlphaForMaskedLM):
    def __init__(self, seed, layers=2):
        torch.manual_seed(seed)
        super().__init__(GAUAlphaConfig(40, 16, 24, 8, layers, initializer_range=0.5))
        self.lengths = []
        self.script = None

    def forward(self, input_ids, **kwargs):
        self.lengths.append(input_ids.shape[1])
        if self.script is not None:
            self.script(input_ids)
        return super().forward(input_ids, **kwargs)


def build_engine(**kwargs):
    docs = [np.random.default_rng(seed).integers(2, 40, size=70) for seed in range(12)]
    options = EvaluationOptions(**{"length_ratios": [1, 2, 4, 8], "num_resamples": 50, **kwargs})
    return ExtrapolationEngine(docs, Vocabulary(40, 1, 0), 8, options)


def build_candidates():
    first, second = Counting(0), Counting(1, layers=3)
    return [
        Candidate("a", first, first.method, group="plain"),
        Candidate("b", second, second.method, group="plain"),
        Candidate("a info", first, AttentionMethod(scaling=InfoScale(8))),
    ]


def untimed(rows):
    return [replace(row, **UNTIMED) for row in rows]


def test_differences_across_models_are_paired_to_the_named_baseline():
    engine = build_engine()
    rows = list(engine.compare(build_candidates(), baseline="b"))
    assert [row.method for row in rows[:3]] == ["b", "a", "a info"], "the baseline leads"
    at = {(row.method, row.length): row for row in rows}
    # By hand, from what each model gives alone.
    alone = {}
    for candidate in build_candidates():
        engine_alone = build_engine()
        for row in engine_alone.evaluate(candidate.model, {candidate.name: candidate.method}):
            alone[candidate.name, row.length] = row
    for (name, length), row in at.items():
        assert row.loss == alone[name, length].loss
        assert row.loss_low == alone[name, length].loss_low
        if name == "b":
            assert (row.baseline, row.loss_difference) == ("", None)
            continue
        assert row.baseline == "b"
        assert row.loss_difference == pytest.approx(row.loss - alone["b", length].loss, abs=1e-12)
        assert row.accuracy_difference == pytest.approx(row.accuracy - alone["b", length].accuracy, abs=1e-12)
        assert row.loss_difference_low < row.loss_difference < row.loss_difference_high
        unpaired = (row.loss_high - row.loss_low) + (alone["b", length].loss_high - alone["b", length].loss_low)
        assert row.loss_difference_high - row.loss_difference_low < unpaired
    assert {row.group for row in rows} == {"plain", ""}


def test_progress_has_one_total_over_all_models():
    told = []
    list(build_engine().compare(build_candidates(), progress=lambda *news: told.append(news)))
    assert len({total for _, total, _ in told}) == 1
    done = [news[0] for news in told]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(told[-1][1])


def test_similarity_is_noted_once_and_by_what_the_weights_were_trained_for():
    model = Counting(0)
    cosine = AttentionMethod(CosScale(4.0))
    candidates = [
        Candidate("own", model, model.method, trained_method=cosine),
        Candidate("cosine", model, cosine, trained_method=cosine, note="a note"),
    ]
    rows = {row.method: row for row in build_engine(length_ratios=[1]).compare(candidates)}
    assert rows["own"].note.count("similarity") == 1
    assert rows["cosine"].note == "a note"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": []}, "nothing to compare"),
        ({"baseline": "c"}, r"baseline='c' is not evaluated; choose one of: a, b, a info"),
        ({"time_budget": 0.0}, "time_budget=0.0"),
    ],
)
def test_wrong_calls_are_named(wrong, message):
    arguments = {"candidates": build_candidates(), **wrong}
    with pytest.raises(ValueError, match=message):
        build_engine().compare(**arguments)
    twice = [build_candidates()[0]] * 2
    with pytest.raises(ValueError, match="must differ, got a, a"):
        build_engine().compare(twice)


# ---- interruptions ----


IDENTITY = {"checkpoints": {"a": "1f"}, "options": {"seed": 0, "ratios": [1, 2]}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_after", "protocol"),
    [
        *((stop, {}) for stop in range(12)),
        *((stop, {"protocol": "single-mask", "positions_per_document": 3}) for stop in (0, 4, 8)),
    ],
)
def test_what_is_finished_is_not_measured_again(tmp_path, stop_after, protocol):
    engine = build_engine(**protocol)
    whole = list(engine.compare(build_candidates()))
    assert len(whole) == 12
    rows = engine.compare(build_candidates(), cache=ResultCache(tmp_path / "unfinished", IDENTITY))
    for _ in range(stop_after):
        next(rows)
    del rows
    candidates = build_candidates()
    cache = ResultCache(tmp_path / "unfinished", IDENTITY)
    assert len(cache.known()) == stop_after
    again = list(engine.compare(candidates, cache=cache))
    assert untimed(again) == untimed(whole), "to the last digit"
    assert [row.seconds for row in again[:stop_after]] != [row.seconds for row in whole[:stop_after]] or not stop_after
    measured = {8 * ratio for ratio in (1, 2, 4, 8)[stop_after // 3 :]}
    assert {length for candidate in candidates for length in candidate.model.lengths} == measured
    cache.close()
    assert list(tmp_path.iterdir()) == []


def test_a_lack_of_memory_and_losses_that_are_no_numbers_are_kept_too(tmp_path):
    def spoil(input_ids):
        if input_ids.shape[1] == 32:
            raise MemoryError

    engine = build_engine()
    candidates = build_candidates()
    candidates[0].model.script = spoil
    with torch.no_grad():
        candidates[1].model.cls.predictions["decoder"].weight.fill_(math.nan)
    first = list(engine.compare(candidates, cache=ResultCache(tmp_path / "unfinished", IDENTITY)))
    statuses = {(row.method, row.length): row.status for row in first}
    assert statuses["a", 32] is statuses["a", 64] is Status.OUT_OF_MEMORY
    assert statuses["b", 8] is Status.NOT_FINITE
    for candidate in candidates:
        candidate.model.lengths.clear()
    again = list(engine.compare(candidates, cache=ResultCache(tmp_path / "unfinished", IDENTITY)))
    assert again == first
    assert not [length for candidate in candidates for length in candidate.model.lengths]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**IDENTITY, "checkpoints": {"a": "2f"}}, r'checkpoints.a: "1f" there, "2f" here'),
        ({**IDENTITY, "options": {"seed": 1, "ratios": [1, 2]}}, r"options.seed: 0 there, 1 here"),
        ({**IDENTITY, "options": {"seed": 0, "ratios": [1]}}, r"options.ratios: \[1, 2\] there, \[1\] here"),
        ({"checkpoints": {"a": "1f"}}, r"options: .* there, null here"),
    ],
)
def test_results_of_something_else_are_never_mixed_in(tmp_path, other, message):
    rows = build_engine().compare(build_candidates(), cache=ResultCache(tmp_path / "unfinished", IDENTITY))
    next(rows)
    with pytest.raises(ValueError, match=message) as error:
        ResultCache(tmp_path / "unfinished", other)
    assert "--output_dir" in str(error.value)
    ResultCache(tmp_path / "unfinished", json.loads(json.dumps(IDENTITY)))


def test_half_written_files_are_no_results(tmp_path):
    cache = ResultCache(tmp_path / "unfinished", IDENTITY)
    next(build_engine().compare(build_candidates(), cache=cache))
    (tmp_path / "unfinished" / ".0123456789abcdef.json.77").write_text('{"name": "b", "len')
    assert list(ResultCache(tmp_path / "unfinished", IDENTITY).known()) == [("mlm", "a", 8)]
    cache.close()
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == [".0123456789abcdef.json.77"]


def test_only_what_an_evaluation_has_made_is_removed(tmp_path):
    cache = ResultCache(tmp_path / "unfinished", IDENTITY)
    next(build_engine().compare(build_candidates(), cache=cache))
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "unfinished.backup").mkdir()
    mine = [tmp_path / "unfinished.backup/a", tmp_path / "unfinished/notes.json.txt", tmp_path / "unfinished/sub"]
    for path in mine:
        path.write_text("mine")
    (tmp_path / "unfinished/0123456789abcdef.json").symlink_to(tmp_path / "precious")
    cache.close()
    assert all(path.read_text() == "mine" for path in (*mine, tmp_path / "precious"))
    assert sorted(path.name for path in (tmp_path / "unfinished").glob("*.json")) == ["0123456789abcdef.json"]


def test_measurements_of_another_evaluation_are_never_mixed_in(tmp_path):
    """As two have left them that began in one folder at once."""
    for number, seed in enumerate((1, 2)):
        cache = ResultCache(tmp_path / str(seed), {"seed": seed})
        list(zip(range(number + 1), build_engine().compare(build_candidates(), cache=cache), strict=False))
    for path in (tmp_path / "2").glob("[!i]*.json"):
        path.rename(tmp_path / "1" / path.name)
    assert len(list((tmp_path / "1").glob("[!i]*.json"))) == 3
    assert len(ResultCache(tmp_path / "1", {"seed": 1}).known()) == 1


def test_nothing_stays_of_an_evaluation_that_measured_nothing(tmp_path):
    with claimed(tmp_path / "unfinished"):
        ResultCache(tmp_path / "unfinished", IDENTITY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_folder_in_use_is_refused_with_host_and_process(tmp_path):
    folder = tmp_path / "unfinished"
    with holding(folder / "claim.lock") as process, pytest.raises(ValueError, match="in use") as error, claimed(folder):
        pass
    assert f"process {process} on {socket.gethostname()}" in str(error.value)


# ---- time ----


def test_what_would_end_too_late_is_not_begun_and_can_be_gone_on_with(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("gau_alpha.extrapolation.engine.time.monotonic", lambda: now[0])

    def work(input_ids):
        now[0] += input_ids.numel() / 1000

    candidates = build_candidates()
    for candidate in candidates[:2]:
        candidate.model.script = work
    engine = build_engine(tokens_per_batch=8)
    # Twelve documents of 8, 16, 32 tokens take 0.1, 0.2, 0.4 s: 0.86 s after six rows, more than a second after seven.
    rows = list(engine.compare(candidates, cache=ResultCache(tmp_path / "unfinished", IDENTITY), time_budget=1.0))
    statuses = [row.status.value for row in rows]
    done = statuses.index("out of time")
    assert 6 <= done < 9
    assert set(statuses[:done]) == {"ok"}
    assert set(statuses[done:]) == {"out of time"}
    assert now[0] <= 1.0
    assert rows[-1].loss is None
    whole = list(engine.compare(candidates, cache=ResultCache(tmp_path / "unfinished", IDENTITY)))
    assert {row.status for row in whole} == {Status.OK}
    assert [row.loss for row in whole[:done]] == [row.loss for row in rows[:done]]


def test_training_free_is_what_these_weights_need_no_training_for():
    """On weights that were trained with cosine attention, presets of cosine attention are, and others' are not."""
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(40, 16, 24, 8, 4), AttentionMethod(similarity=CosScale()))
    checkpoint = LoadedCheckpoint(Path("x.ckpt"), "x", model, model.method, 64, "", "", "raw")
    names, left_out = expand_methods([checkpoint], ["training-free"])
    assert names[0] == "trained"
    assert {"cosscale", "cosscale_infoscale", "logn", "windowed", "yarn_infoscale"} <= set(names)
    assert not {"softmax", "infoscale", "alibi", "ssmax", "calibrated", "fitted"} & set(names)
    assert [line.split()[0] for line in left_out] == ["calibrated", "random_keys", "fitted"]
    everything, _ = expand_methods([checkpoint], ["windowed", "all"])
    assert everything[0] == "windowed"
    assert {"softmax", "alibi", *names} <= set(everything)
    assert len(set(everything)) == len(everything)
