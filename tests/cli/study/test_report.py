"""Reports over results that are made up: which seeds say what is known."""

import io
import json
import re

import pandas as pd
import pytest
import yaml

from gau_alpha.cli.study.definition import Side, read_study
from gau_alpha.cli.study.report import write_report
from gau_alpha.cli.study.results import Results
from gau_alpha.cli.study.tasks import tasks_of
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import Report

SEEDS = [0, 1, 2]
# Loss at 4×, by training and method: a seed's own luck is shared by all of its rows, and cancels in differences.
LUCK = {0: -0.3, 1: 0.0, 2: 0.3}
LOSS = {("a", "plain"): 2.0, ("a", "better"): 1.5, ("a", "same_&_$"): 1.5, ("b", "plain"): 3.0}
NOISE = {0: 0.01, 1: -0.01, 2: 0.0}
GAIN = {"plain": 0.0, "better": 0.5, "same_&_$": 0.0}


def comparison(name, first, second, **more):
    shared = {"training": "a", "length_ratio": 4, "name": name}
    return {**shared, "first": {"method": first}, "second": {"method": second}, **more}


STUDY = {
    "base": "demo.yaml",
    "seeds": SEEDS,
    "title": "Made up",
    "trainings": {"a": {}, "b": {"seeds": [0, 2, 1]}},
    "evaluations": {
        "main": {
            "methods": ["plain", "better", "same_&_$"],
            "options": {"protocol": ["mlm", "copy"], "length_ratios": [1, 4]},
        }
    },
    "comparisons": [
        {
            "name": "of other text",
            "length_ratio": 4,
            "method": "plain",
            "first": {"training": "a"},
            "second": {"training": "b"},
        },
        comparison("lower as expected", "better", "plain", expect="lower"),
        comparison("lower, but expected higher", "better", "plain", expect="higher"),
        comparison("open", "better", "plain"),
        comparison("no difference", "same_&_$", "better", expect="within", margin=0.2),
        comparison("more than the margin", "plain", "better", expect="within", margin=0.2),
        comparison("too close to call", "same_&_$", "better"),
        comparison("gains", "better", "plain", metric="gain", expect="higher"),
    ],
}


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    study = read_study(path)
    tasks = tasks_of(study, tmp_path / "out")
    for task in tasks:
        if task.kind == "training":
            continue
        rows = []
        for (training, method), loss in LOSS.items():
            if training == task.parent.name:
                for ratio in (1, 4):
                    value = loss + LUCK[task.seed] + (NOISE[task.seed] if method == "better" else 0)
                    rows.append(made(method, ratio, "mlm", loss=value, perplexity=2.718281828459045**value))
                if method in GAIN:
                    gain = GAIN[method] + NOISE[task.seed] * (method == "better")
                    rows.append(made(method, 4, "copy", loss=9.0, distance=48, gain=gain))
        task.begin()
        (task.folder / "extrapolation.json").write_text(
            Report(rows, {"documents_sha256": {"mlm": task.parent.name, "copy": "all"}}).json()
        )
        task.finish(1.0, resumed=False)
    return Results.of_tasks(study, tasks)


def made(method, ratio, protocol, **numbers):
    known = {"status": Status.OK, "num_targets": 10, "num_documents": 3, **numbers}
    return ExtrapolationResult(method=method, length_ratio=ratio, length=16 * ratio, protocol=protocol, **known)


def test_verdicts(results):
    found = {one.comparison.name: one for one in results.verdicts}
    assert {name: one.verdict for name, one in found.items()} == {
        "of other text": "other documents",
        "lower as expected": "confirmed",
        "lower, but expected higher": "refuted",
        "open": "lower",
        "no difference": "confirmed",
        "more than the margin": "refuted",
        "too close to call": "undecided",
        "gains": "confirmed",
    }
    assert found["lower as expected"].difference.value == pytest.approx(-0.5)
    assert found["gains"].difference.value == pytest.approx(0.5)
    assert found.pop("of other text").difference is None
    for one in found.values():
        assert one.p_value <= one.adjusted <= 1


SETTINGS = {"protocol": {"name": "mlm"}, "span_position": "spread", "seed": 0, "train_length": 16, "entropy": True}


@pytest.mark.parametrize(
    ("ours", "theirs", "are_paired"),
    [
        ({}, {"entropy": False, "length_ratios": [1, 8]}, True),
        ({}, {"span_position": "first"}, False),
        ({}, {"seed": 1}, False),
        ({}, {"protocol": {"name": "single-mask"}}, False),
        ({}, {"train_length": 32}, False),
        ({}, {"num_documents": 2}, False),
        ({"span_position": "aligned"}, {"span_position": "aligned", "length_ratios": [1, 8]}, False),
    ],
)
def test_the_same_documents_are_paired_only_at_the_same_targets(tmp_path, ours, theirs, are_paired):
    path = tmp_path / "study.yaml"
    evaluations = {"ours": {"methods": ["plain"]}, "theirs": {"methods": ["plain"]}}
    content = {**STUDY, "trainings": {"a": {}}, "evaluations": evaluations, "comparisons": []}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    study = read_study(path)
    tasks = tasks_of(study, tmp_path / "out")
    for task in tasks:
        if task.kind == "evaluation":
            settings = {**SETTINGS, **(ours if task.name.startswith("ours") else theirs)}
            rows = [made("plain", 4, "mlm", loss=1.0, num_documents=settings.pop("num_documents", 3))]
            task.begin()
            run = {"documents_sha256": {"mlm": "all"}, "evaluations": {"mlm": settings}}
            (task.folder / "extrapolation.json").write_text(Report(rows, run).json())
            task.finish(1.0, resumed=False)
    first, second = (Side("a", "plain", name, 4) for name in evaluations)
    found = Results.of_tasks(study, tasks).differences(first, second)
    assert len(found) == (len(SEEDS) if are_paired else 0)


def test_the_best_and_what_does_not_differ_from_it(results):
    evaluation = results.study.evaluations["main"]
    assert results.not_worse(evaluation, 4, "loss") == set(), "b has read other text"
    for row in results.rows:
        row["documents_sha256"] = "all"
    assert results.not_worse(evaluation, 4, "loss") == {("a", "better"), ("a", "same_&_$")}
    assert results.not_worse(evaluation, 4, "gain") == {("a", "better")}


def test_intervals_are_over_seeds_and_differences_are_paired(results):
    mean = results.mean(Side("a", "plain", "main", 4))
    assert mean.value == pytest.approx(2.0)
    assert mean.half_width == pytest.approx(4.303 * 0.3 / 3**0.5, rel=1e-3)
    assert results.differences(Side("a", "same_&_$", "main", 4), Side("a", "plain", "main", 4)) == pytest.approx(
        [-0.5] * 3
    )


@pytest.mark.slow
def test_trainings_of_two_lengths_stand_under_their_ratio(results, tmp_path):
    for row in results.rows:
        if row["training"] == "b":
            row["length"] *= 2
    write_report(results, tmp_path / "report", "Made up")
    text = (tmp_path / "report" / "study.md").read_text()
    assert "| training: method | 1× | 4× |" in text
    assert "At 1×, 4× not all read the same documents: no best is marked." in text
    summary = pd.read_parquet(tmp_path / "report" / "summary.parquet")
    found = {(row.training, row.length_ratio, row.length) for row in summary.itertuples() if row.method == "plain"}
    assert found == {("a", 1, 16), ("a", 4, 64), ("b", 1, 32), ("b", 4, 128)}


def test_the_files(results, tmp_path):
    for row in results.rows:
        row["documents_sha256"] = "all"
    paths = {path.name: path for path in write_report(results, tmp_path / "report", "Made up")}
    text = paths["study.md"].read_text()
    assert "Seeds of weights and data order: 0, 1, 2; of b 0, 2, 1. Brackets" in text
    assert "Not finished: 6 tasks are left" in text  # the trainings, which were not done here
    assert r"**4.48 \[2.13, 9.44\]**" in text
    assert "+0.500 ± 0.025" in text
    tex = paths["study.tex"].read_text()
    assert r"a: same\_\&\_\$" in tex
    assert r"$\pm$" in tex
    assert tex.count(r"\begin{table}") == tex.count(r"\label{tab:") == 5
    page = paths["study.html"].read_text()
    assert page.count("<svg") == 2
    assert not re.search(r"(src|href)=.?https?:", page)
    rows = pd.read_parquet(io.BytesIO(paths["results.parquet"].read_bytes()))
    assert len(rows) == len(SEEDS) * (2 * len(LOSS) + len(GAIN) + 1)
    summary = pd.read_parquet(paths["summary.parquet"])
    (one,) = summary[(summary.method == "better") & summary.gain.notna()].itertuples()
    assert (one.gain, one.gain_difference) == pytest.approx((0.5, 0.5))
    assert one.loss != one.loss  # that of the probe's rows is no result


def test_a_comparison_of_what_the_weights_were_not_trained_for_says_so(results, tmp_path):
    said = "similarity DotProduct() overridden: the weights were trained for another one"
    for row in results.rows:
        if row["method"] == "better":
            row["note"] = said
    write_report(results, tmp_path / "report", "Made up")
    (table,) = re.findall(r"## Comparisons.*?\n## ", (tmp_path / "report" / "study.md").read_text(), re.S)
    assert "a: better † at 4× (main) − a: plain at 4× (main)" in table
    assert table.count("† a: better:") == 1


@pytest.mark.slow
def test_a_seed_without_a_number_is_named_where_means_are_over_the_others(results, tmp_path):
    for row in results.rows:
        if row["length_ratio"] == 4 and (row["training"], row["method"], row["seed"]) == ("a", "better", 2):
            row |= {"status": Status.NOT_FINITE, "loss": None, "gain": None}
        if row["length_ratio"] == 1:
            row |= {"status": Status.NO_DOCUMENTS, "loss": None}
    write_report(results, tmp_path / "report", "Made up")
    for name in ("study.md", "study.html", "study.tex"):
        text = (tmp_path / "report" / name).read_text().replace(r"$\times$", "×")
        assert text.count("Without a number at 4×, not finite: a: better, seed 2.") == 2, "loss and gain"
        assert text.count("Without a number at 1×, no documents: all.") == 1
        assert text.count("open: over 2 of 3 seeds") == 1
        assert "too close to call: over 2 of 3 seeds" in text
        assert "of other text: over" not in text


def test_numbers_that_are_missing_are_said_to_be(results, tmp_path):
    for task in (tmp_path / "out" / "evaluations").rglob("done.json"):
        if "/b/" not in task.as_posix():
            task.unlink()
    left = Results.of_tasks(results.study, tasks_of(results.study, tmp_path / "out"))
    assert {one.verdict for one in left.verdicts} == {"not measured"}
    assert len(left.rows) == 9
    write_report(left, tmp_path / "report", "Made up")
    assert "not measured" in (tmp_path / "report" / "study.md").read_text()


def test_a_report_that_is_no_report_is_named(results, tmp_path):
    path = next((tmp_path / "out").rglob("extrapolation.json"))
    path.write_text(json.dumps({"rows": 1}))
    with pytest.raises(ValueError, match="is not a report of this software"):
        Results.of_tasks(results.study, tasks_of(results.study, tmp_path / "out"))
