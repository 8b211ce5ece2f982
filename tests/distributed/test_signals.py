"""Several processes: a signal to one of them, and a damaged checkpoint before all."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from kill_drill import same
from lightning.pytorch import Callback
from small_run import on_cpu, write_config, write_corpus
from together import run_together, srun

from gau_alpha.checkpoints import read_checkpoint

STATE = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "schedule")


class SignalTo(Callback):
    """Sends some of the processes a signal amid a step."""

    def __init__(self, ranks: list[int], step: int, number: int = int(signal.SIGTERM)) -> None:
        self.ranks, self.step, self.number = ranks, step, number

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_rank in self.ranks and trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


def fit(folder, corpus, strategy, *callbacks):
    path = write_config(folder, corpus, list(callbacks))
    return run_together(folder, ["fit", "--config", str(path), *on_cpu(strategy, 2), "--auto_resume", "true"], 2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module", params=["ddp.yaml", "fsdp.yaml"])
def undisturbed(request, tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("undisturbed") / "runs"
    ended = fit(folder, corpus, request.param)
    assert [one.code for one in ended] == [0, 0], ended
    return request.param, folder


def assert_same_end(folder: Path, undisturbed: Path) -> None:
    last = Path("run/one/checkpoints/last.ckpt")
    one, two = read_checkpoint(undisturbed / last), read_checkpoint(folder / last)
    assert [name for name in STATE if not same(one[name], two[name])] == []


@pytest.mark.slow
def test_a_signal_to_one_ends_all_at_the_same_step(tmp_path, corpus, undisturbed):
    strategy, alone = undisturbed
    folder = tmp_path / "runs"
    send = {"class_path": f"{__name__}.SignalTo", "init_args": {"ranks": [1], "step": 5}}
    ended = fit(folder, corpus, strategy, send)
    assert [one.code for one in ended] == [143, 143], ended
    assert "interrupted.ckpt at step 5, ending" in ended[0].output
    assert read_checkpoint(folder / "run/one/checkpoints/interrupted.ckpt")["global_step"] == 5
    ended = fit(folder, corpus, strategy)
    assert [one.code for one in ended] == [0, 0], ended
    assert re.search(r"resuming from \S+interrupted.ckpt", ended[0].output)
    assert_same_end(folder, alone)


@pytest.mark.slow
def test_all_pass_over_the_same_damaged_checkpoints(tmp_path, corpus, undisturbed):
    strategy, alone = undisturbed
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
    one, two = read_checkpoint(alone / "run/one/checkpoints/last.ckpt"), read_checkpoint(newest)
    assert [name for name in STATE if not same(one[name], two[name])] == []


@pytest.mark.slow
def test_a_slurm_job_has_itself_queued_again_once(tmp_path, corpus, monkeypatch):
    told = tmp_path / "told.txt"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    send = {
        "class_path": f"{__name__}.SignalTo",
        "init_args": {"ranks": [0, 1], "step": 3, "number": int(signal.SIGUSR1)},
    }
    config = write_config(tmp_path / "runs", corpus, [send])
    options = [*on_cpu("slurm.yaml", 2), "--trainer.num_nodes", "1", "--auto_resume", "true"]
    ended = run_together(tmp_path / "runs", ["fit", "--config", str(config), *options], 2, launcher=srun)
    assert [one.code for one in ended] == [128 + signal.SIGUSR1] * 2, ended
    assert "interrupted.ckpt at step 3, ending" in ended[0].output
    assert told.read_text() == "requeue 17\n"
    assert "requeued job 17" in ended[0].output
