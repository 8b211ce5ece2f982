"""A study of two trainings, two methods and two seeds, left alone and disturbed: the results are the same."""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from process_harness import differences, start_cli
from refusals import refused
from tiny_data import tiny_run, write_texts

from gau_alpha.cli import main
from gau_alpha.cli.study.lock import TaskLock
from gau_alpha.cli.study.runner import _run

pytestmark = pytest.mark.slow

CLOCK = ("seconds", "tokens_per_second", "peak_memory_bytes")
COMPARISON = {
    "name": "far is harder",
    "training": "child",
    "method": "trained",
    "first": {"length_ratio": 4},
    "second": {"length_ratio": 1},
}
KILLS = int(os.environ.get("STUDY_KILLS", "3"))  # `make drill` asks for more


@pytest.fixture(scope="module")
def study(slow, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    corpus = write_texts(folder / "corpus", range(87, 99))
    saver = {"save_last": True, "every_n_train_steps": 10}
    base = tiny_run(folder, corpus, "base", saver, accelerator="cpu", max_steps=30, limit_val_batches=2)
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    content = {
        "base": "base.yaml",
        "seeds": [0, 1],
        "trainings": {
            "softmax": {},
            "child": {
                "parent": "softmax",
                "overrides": {"model": {"method": "cosscale"}, "trainer": {"max_steps": 10}},
            },
        },
        "evaluations": {
            "main": {
                "methods": ["trained", "infoscale"],
                "options": {"length_ratios": [1, 4], "max_documents": 4, "distances": False},
            }
        },
        "comparisons": [COMPARISON],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def undisturbed(study) -> Path:
    output = study.parent / "undisturbed"
    assert main(["study", str(study), "--output_dir", str(output)]) == 0
    return output


def measured(output: Path) -> dict[str, object]:
    """What a study has measured, without what the clock decides."""
    found = {}
    for path in sorted((output / "evaluations").rglob("extrapolation.json")):
        rows = json.loads(path.read_text())["rows"]
        found[str(path.relative_to(output))] = [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]
    return found


def assert_the_same(output: Path, undisturbed: Path, num_seeds: int) -> None:
    expected, found = measured(undisturbed), measured(output)
    assert found == {path: rows for path, rows in expected.items() if path in found}
    finals = sorted(path.relative_to(output) for path in output.rglob("final.ckpt"))
    assert len(found) == len(finals) == 2 * num_seeds
    for path in finals:
        assert differences(output / path, undisturbed / path) == []


def test_a_study_leaves_a_report_and_every_number(study, undisturbed, capsys):
    text = (undisturbed / "study.md").read_text()
    assert "child: infoscale" in text
    assert "far is harder" in text
    assert "Not finished" not in text
    tex = (undisturbed / "study.tex").read_text()
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 4
    for name in ("study.html", "main_perplexity.png", "main_perplexity.pdf", "summary.parquet", "run.json"):
        assert (undisturbed / name).stat().st_size > 0
    rows = pd.read_parquet(undisturbed / "results.parquet")
    assert len(rows) == 2 * 2 * 2 * 2
    summary = pd.read_parquet(undisturbed / "summary.parquet").set_index(["training", "method", "length_ratio"])
    mine = rows[(rows.training == "child") & (rows.method == "infoscale") & (rows.length_ratio == 4)]
    one = summary.loc["child", "infoscale", 4]
    assert one.loss == pytest.approx(mine.loss.mean())
    # Student's t of one degree of freedom, as in any table, times the standard error of two values.
    assert one.loss_high - one.loss == pytest.approx(12.7062 * abs(mine.loss.diff().iloc[1]) / 2, rel=1e-4)
    assert main(["study", str(study), "--output_dir", str(undisturbed), "--list"]) == 0
    said = capsys.readouterr().out
    assert said.count(" done ") == 8
    assert said.endswith("left: nothing\n")


def test_the_parent_is_where_a_training_starts(undisturbed):
    config = yaml.safe_load((undisturbed / "trainings/child/seed_1/config.yaml").read_text())
    assert config["model"]["init_from"] == str(undisturbed / "trainings/softmax/seed_1/checkpoints/final.ckpt")
    assert config["seed_everything"] == config["data"]["init_args"]["seed"] == 1


def test_killed_at_random_moments_it_ends_as_if_left_alone(study, undisturbed, tmp_path):
    output, log, dice = tmp_path / "killed", tmp_path / "log.txt", random.Random(5)
    args = ["study", str(study), "--output_dir", str(output)]
    for kill in range(KILLS):
        process = start_cli(args, log, start_new_session=True)
        time.sleep(dice.uniform(4, 14))
        if kill % 3 == 0:
            process.kill()  # the command that it has started lives on, and the next start waits for it
        elif kill % 3 == 1:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.terminate()  # this process alone; it lets the command end in its own way
        assert process.wait(timeout=120) in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, 0)
    assert start_cli(args, log).wait() == 0, log.read_text()
    assert_the_same(output, undisturbed, num_seeds=2)
    assert (output / "study.md").read_text() == (undisturbed / "study.md").read_text()


def test_a_signal_to_a_study_alone_ends_its_command_then_itself(tmp_path):
    lock = TaskLock(tmp_path / "task.lock")
    assert lock.acquire(wait=False)
    sent = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    sent.start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        _run(["calibrate", "--help_all"], tmp_path / "log.txt", lock.descriptor)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    lock.release()
    assert TaskLock(tmp_path / "task.lock").acquire(wait=False), "what inherited the lock has ended"


def test_tasks_in_any_order_twice_and_two_at_a_time(study, undisturbed, tmp_path):
    output, log = tmp_path / "tasks", tmp_path / "log.txt"
    one_seed = study.with_name("one_seed.yaml")
    one_seed.write_text(yaml.safe_dump({**yaml.safe_load(study.read_text()), "seeds": [1]}, sort_keys=False))
    for pair in ((4, 4), (3, 4)):
        args = ["study", str(one_seed), "--output_dir", str(output), "--task"]
        started = [start_cli([*args, str(number)], log) for number in pair]
        assert [process.wait() for process in started] == [0, 0], log.read_text()
    assert_the_same(output, undisturbed, num_seeds=1)
    assert "Not finished" not in (output / "study.md").read_text(), "whoever was last has written the report"


def test_what_was_changed_is_refused_by_name(study, undisturbed, tmp_path, capsys):
    base, content = study.with_name("base.yaml").read_text(), yaml.safe_load(study.read_text())
    command = ["study", str(study), "--output_dir", str(undisturbed)]
    try:
        study.with_name("base.yaml").write_text(base.replace("max_steps: 30", "max_steps: 31"))
        assert "trainer.max_steps: 30 then, 31 now" in refused(capsys, command)
    finally:
        study.with_name("base.yaml").write_text(base)
    later = study.with_name("later.yaml")
    later.write_text(yaml.safe_dump({**content, "comparisons": [{**COMPARISON, "expect": "higher"}]}, sort_keys=False))
    said = refused(capsys, ["study", str(later), "--output_dir", str(undisturbed)])
    assert "named after looking at results" in said
    assert "must be a number from 1 to 8" in refused(capsys, [*command, "--task", "9"])


def test_a_part_that_fails_is_named_and_others_go_on(study, tmp_path, capsys):
    content = yaml.safe_load(study.read_text())
    content["seeds"] = [0]
    content["trainings"]["softmax"] = {"overrides": {"trainer": {"max_steps": 1}, "model": {"dropout": "much"}}}
    content["trainings"]["child"] = {"overrides": {"trainer": {"max_steps": 1}}}
    path = study.with_name("failing.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert main(["study", str(path), "--output_dir", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "task 1, training softmax, seed 0 failed with code 2" in said
    assert "dropout" in said
    assert "task 3, evaluation main of softmax, seed 0: not tried" in said
    assert "2 tasks are left" in (tmp_path / "out" / "study.md").read_text()
