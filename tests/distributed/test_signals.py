"""Several processes: a signal to one of them, and a damaged checkpoint before all."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from process_harness import differences, run_together, send_signal, srun
from small_run import on_cpu, write_config, write_corpus

from gau_alpha.checkpoints import read_checkpoint


def fit(folder, corpus, strategy, *callbacks):
    path = write_config(folder, corpus, list(callbacks))
    return run_together(folder, ["fit", "--config", str(path), *on_cpu(strategy, 2), "--auto_resume", "true"], 2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module", params=["ddp.yaml", "fsdp.yaml"])
def uninterrupted(slow, request, tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("uninterrupted") / "runs"
    ended = fit(folder, corpus, request.param)
    assert [one.code for one in ended] == [0, 0], ended
    return request.param, folder


LAST = Path("run/one/checkpoints/last.ckpt")


@pytest.mark.slow
def test_a_signal_to_one_ends_all_at_the_same_step(tmp_path, corpus, uninterrupted):
    strategy, alone = uninterrupted
    folder = tmp_path / "runs"
    ended = fit(folder, corpus, strategy, send_signal(signal.SIGTERM, 5, ranks=[1]))
    assert [one.code for one in ended] == [143, 143], ended
    assert "interrupted.ckpt at step 5, ending" in ended[0].output
    assert read_checkpoint(folder / "run/one/checkpoints/interrupted.ckpt")["global_step"] == 5
    ended = fit(folder, corpus, strategy)
    assert [one.code for one in ended] == [0, 0], ended
    assert re.search(r"resuming from \S+interrupted.ckpt", ended[0].output)
    assert differences(alone / LAST, folder / LAST) == []


@pytest.mark.slow
def test_all_pass_over_the_same_damaged_checkpoints(tmp_path, corpus, uninterrupted):
    strategy, alone = uninterrupted
    folder = shutil.copytree(alone, tmp_path / "runs")
    checkpoints = folder / "run/one/checkpoints"
    for name in ("last.ckpt", "epoch=0-step=8.ckpt"):
        content = bytearray((checkpoints / name).read_bytes())
        content[len(content) // 2] ^= 1
        (checkpoints / name).write_bytes(content)
    ended = fit(folder, corpus, strategy)
    assert [one.code for one in ended] == [0, 0], ended
    assert re.search(r"skipped: \S+last.ckpt is damaged", ended[0].output)
    assert re.search(r"resuming from \S+step=6.ckpt, the latest valid checkpoint", ended[0].output)
    newest = max(checkpoints.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert differences(alone / LAST, newest) == []


@pytest.mark.slow
def test_a_slurm_job_has_itself_queued_again_once(tmp_path, corpus, monkeypatch):
    told = tmp_path / "told.txt"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    config = write_config(tmp_path / "runs", corpus, [send_signal(signal.SIGUSR1, 3)])
    options = [*on_cpu("slurm.yaml", 2), "--trainer.num_nodes", "1", "--auto_resume", "true"]
    ended = run_together(tmp_path / "runs", ["fit", "--config", str(config), *options], 2, launcher=srun)
    assert [one.code for one in ended] == [128 + signal.SIGUSR1] * 2, ended
    assert "interrupted.ckpt at step 3, ending" in ended[0].output
    assert told.read_text() == "requeue 17\n"
    assert "requeued job 17" in ended[0].output
