"""``extrapolate`` killed and started again ends with the files of an undisturbed run."""

import json
import os
import random
import signal

import pytest
from process_harness import interrupt, start_cli

from gau_alpha.cli import main

KILLS = int(os.environ.get("EVALUATION_KILLS", "4"))  # `make drill` asks for more
TIMED = ("seconds", "tokens_per_second", "peak_memory_bytes")


def command(run, folder):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "trained", "infoscale", "windowed"]
    args += ["--length_ratios", "1", "2", "4", "8", "16", "--protocol", "single-mask", "--positions_per_document", "40"]
    return [*args, "--tokens_per_batch", "64", "--latex", "true", "--output_dir", str(folder)]


def results(folder):
    """All that doesn't depend on the clock."""
    content = json.loads((folder / "extrapolation.json").read_text())
    for row in content["rows"]:
        for name in TIMED:
            del row[name]
    files = {path.name for path in folder.iterdir()}
    picture, latex = (folder / "extrapolation.png").read_bytes(), (folder / "extrapolation.tex").read_text()
    return content, files, picture, latex


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_left_alone(run, tmp_path):
    folder = tmp_path / "results"
    assert main(command(run, folder)) == 0
    expected = results(folder)
    suffixes = ("html", "json", "csv", "md", "png", "tex", "documents.parquet")
    assert expected[1] == {f"extrapolation.{suffix}" for suffix in suffixes}
    folder.rename(tmp_path / "uninterrupted")

    def finished() -> int:
        return len(list((folder / "extrapolation.unfinished").glob("[!.]*.json")))

    dice = random.Random(0)
    kept = []
    for _ in range(KILLS):
        wanted = finished() + dice.randrange(3)
        process = start_cli(command(run, folder), tmp_path / "log.txt")
        interrupt(process, signal.SIGKILL, lambda wanted=wanted: finished() > wanted, dice.random() * 0.1)
        kept.append(finished())
    assert kept[0] > 0, "killed before anything was finished: nothing was tested"
    assert main(command(run, folder)) == 0
    again = results(folder)
    again[0]["run"]["command"] = expected[0]["run"]["command"]
    assert again == expected


def test_a_time_budget_is_kept_and_the_same_command_goes_on(run, tmp_path, capsys):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "trained", "infoscale"]
    args += ["--length_ratios", "1", "4", "--output_dir", str(tmp_path)]
    assert main([*args, "--time_budget", "1e-9"]) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    assert {row["status"] for row in content["rows"]} == {"out of time"}
    assert "goes on" in capsys.readouterr().out
    assert main(args) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    assert {row["status"] for row in content["rows"]} == {"ok"}
    assert not (tmp_path / "extrapolation.unfinished").exists()


def test_an_unfinished_evaluation_of_something_else_is_refused(run, tmp_path, capsys):
    (tmp_path / "extrapolation.unfinished").mkdir()
    (tmp_path / "extrapolation.unfinished" / "identity.json").write_text('{"evaluations": {"mlm": {"seed": 5}}}')
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--length_ratios", "1", "--output_dir", str(tmp_path)]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "evaluations.mlm.seed: 5 there, 0 here" in error
    assert "--output_dir" in error
    assert not (tmp_path / "extrapolation.json").exists()
