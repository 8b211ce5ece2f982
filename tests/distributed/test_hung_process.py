"""A process that hangs: the others end with a message that says what to do, and it ends with them."""

import os
import signal
import subprocess
import time

import pytest
import yaml
from process_harness import start_cli
from tiny_data import text_files

pytestmark = pytest.mark.slow

SLEEPER = """
import os, time
from pathlib import Path
from lightning.pytorch import Callback

class Sleeper(Callback):
    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == self.rank and batch_idx == 2:
            Path(f"sleeper{self.rank}.pid").write_text(str(os.getpid()))
            time.sleep(3600)
"""


def begin(folder, strategy, rank):
    """Two processes that Lightning starts by itself."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number in range(8):
        (corpus / f"{number}.txt").write_text(" ".join(f"{(number * i) % 97}" for i in range(300)))
    (folder / "sleeper.py").write_text(SLEEPER)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "attention_key_size": 8, "num_hidden_layers": 2}
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    trainer = {"max_steps": 5, "limit_val_batches": 0, **dict.fromkeys(quiet, False)}
    trainer["callbacks"] = [{"class_path": "sleeper.Sleeper", "init_args": {"rank": rank}}]
    config = {"trainer": trainer, "model": {"config": sizes}, "data": text_files(folder, corpus)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--trainer", f"{strategy}.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    options += ["--trainer.precision", "32-true", "--trainer.strategy.init_args.timeout", "0:00:30"]
    command = ["fit", "--config", "config.yaml", *options]
    return start_cli(command, folder / "log.txt", cwd=folder, stderr=subprocess.PIPE)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "rank"), [("ddp", 1), ("fsdp", 0)])
def test_a_hung_process_ends_in_a_message(tmp_path, strategy, rank):
    process = begin(tmp_path / strategy, strategy, rank)
    pid = tmp_path / strategy / f"sleeper{rank}.pid"
    deadline = time.monotonic() + 150  # two processes start and wait 30 s, perhaps beside other tests
    try:
        _, errors = process.communicate(timeout=deadline - time.monotonic())
        assert process.returncode, "the run did not end well"
        assert f"Process {1 - rank}, at step 2, has waited for the others" in errors, errors
        assert "--auto_resume true" in errors
        while alive(int(pid.read_text())) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(int(pid.read_text()))
    finally:
        process.kill()
        if pid.exists() and alive(int(pid.read_text())):  # on a failure, it would sleep on
            os.kill(int(pid.read_text()), signal.SIGKILL)
