"""Several protocols in one command: a table each, one page, one file of rows; and resumed where it stopped."""

import json
from pathlib import Path

import pytest
from small_runs import train

from gau_alpha.cli import main
from gau_alpha.extrapolation.evaluate_length import evaluate_length

pytestmark = pytest.mark.slow


@pytest.fixture
def longer(run, tmp_path):
    """A checkpoint whose training rows hold a passage twice."""
    return train(
        run, tmp_path, "longer", **{"data.init_args.train_length": 64, "data.init_args.validation_fraction": 0.5}
    )


def arguments(checkpoint):
    few = ["--length_ratios", "1", "2", "--max_documents", "3", "--methods", "trained", "windowed"]
    return ["extrapolate", "--ckpt_path", str(checkpoint), *few, "--output_dir", "out"]


def written():
    return json.loads(Path("out/extrapolation.json").read_text())


def test_two_protocols_end_in_one_page_and_never_in_one_table(longer, capsys):
    assert main([*arguments(longer), "--protocol", "mlm", "copy"]) == 0
    content, page = written(), Path("out/extrapolation.html").read_text()
    rows = [(row["protocol"], row["method"], row["length"]) for row in content["rows"]]
    assert rows == [(p, m, n) for p in ("mlm", "copy") for n in (64, 128) for m in ("trained", "windowed")]
    assert [row["distance"] for row in content["rows"]] == [None] * 4 + [32, 32, 64, 64]
    assert all(row["gain"] is not None for row in content["rows"][4:])
    assert list(content["run"]["evaluations"]) == ["mlm", "copy"]
    assert content["run"]["evaluations"]["copy"]["protocol"]["class_path"].endswith("CopyProbe")
    assert page.count("<h2>Perplexity</h2>") == page.count("<h2>Gain</h2>") == 1
    said = capsys.readouterr().out
    assert "Protocol mlm" in said
    assert "Protocol copy" in said
    alone = content["rows"]
    for name in ("mlm", "copy"):
        assert main([*arguments(longer), "--protocol", name]) == 0
        untimed = [
            {
                key: value
                for key, value in row.items()
                if key not in ("seconds", "tokens_per_second", "peak_memory_bytes")
            }
            for row in written()["rows"]
        ]
        assert untimed == [{key: row[key] for key in untimed[0]} for row in alone if row["protocol"] == name]


def test_an_interrupted_evaluation_of_two_protocols_is_gone_on_with(longer, monkeypatch):
    class Killed(Exception):
        pass

    calls = []

    def interrupted(*args):
        calls.append(args[2])
        if len(calls) == 6:
            raise Killed
        return evaluate_length(*args)

    monkeypatch.setattr("gau_alpha.extrapolation.engine.evaluate_length", interrupted)
    asked = [*arguments(longer), "--protocol", "mlm", "copy"]
    with pytest.raises(Killed):
        main(asked)
    assert len(list(Path("out/extrapolation.unfinished").glob("[!i.]*.json"))) == 5
    assert main(asked) == 0
    assert len(calls) == 6 + 3
    assert len(written()["rows"]) == 8
    assert not Path("out/extrapolation.unfinished").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["copy", "copy"], "protocol must name one or more of mlm, single-mask, copy, recall, each once"),
        (["mlm", "cpoy"], "Unknown protocol 'cpoy'; choose one of: mlm, single-mask, copy, recall"),
    ],
)
def test_wrong_protocols_are_named(run, given, message, capsys):
    assert main([*arguments(run.checkpoint), "--protocol", *given]) == 2
    assert message in capsys.readouterr().err


def test_a_training_row_that_holds_no_two_passages_is_said(run, capsys):
    assert main([*arguments(run.checkpoint), "--protocol", "copy"]) == 2
    assert "train_length is 16, and must be at least 64" in capsys.readouterr().err
