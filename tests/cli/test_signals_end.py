"""Commands end soon after SIGTERM and Ctrl-C, with what is finished kept; SLURM queues a job again."""

import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml
from lightning.pytorch import Callback
from process_harness import run_together, send_signal, srun, start_cli

from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main


class EndIt(Callback):
    """Sends its process a signal at a batch that is evaluated."""

    def __init__(self, number: int):
        self.number = number

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        os.kill(os.getpid(), self.number)

    on_test_batch_start = on_validation_batch_start

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 2:
            os.kill(os.getpid(), self.number)


def ends(number, *args):
    before = signal.getsignal(number)
    more = ["--trainer.callbacks", f"[{{class_path: {__name__}.EndIt, init_args: {{number: {int(number)}}}}}]"]
    with pytest.raises(SystemExit) as ended:
        main([*args, *more])
    assert signal.getsignal(number) is before
    return ended.value.code == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["validate", "test", "extrapolate", "calibrate"])
def test_an_evaluation_ends_at_once(run, tmp_path, command, number, capfd):
    where = {"extrapolate": ["--output_dir", str(tmp_path)], "calibrate": ["--output", str(tmp_path / "c.json")]}
    assert ends(number, command, "--ckpt_path", str(run.checkpoint), *where.get(command, ["--trainer.logger", "false"]))
    assert f"{number.name}: ending" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_predictions_that_are_finished_are_kept(run, tmp_path, number, capsys):
    output = tmp_path / "p.jsonl"
    args = [
        "predict",
        "--ckpt_path",
        str(run.checkpoint),
        "--data.batch_size",
        "2",
        "--predictions.output",
        str(output),
    ]
    assert ends(number, *args)
    kept = tmp_path / "p.jsonl.unfinished"
    rows = [row for piece in kept.glob("rows-*.parquet") for row in pq.read_table(piece)["row"].to_pylist()]
    assert sorted(rows) == list(range(len(rows)))
    assert f"kept in {kept}" in capsys.readouterr().out
    assert rows
    mine = kept / "of-mine.parquet"
    mine.write_text("mine")
    assert main(args) == 0
    assert output.exists()
    assert [path.name for path in kept.iterdir()] == [mine.name]


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_workers_and_saves_all_the_same(run, tmp_path):
    """Gradients are being accumulated: the step needs another batch of the workers."""
    config = yaml.safe_load(run.config.read_text().replace(str(run.config.parent), str(tmp_path)))
    config["trainer"] |= {"max_steps": 500, "accumulate_grad_batches": 4}
    config["trainer"]["callbacks"].append(send_signal(signal.SIGINT, 3, "after", group=True))
    config["data"]["init_args"]["num_workers"] = 2
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    process = start_cli(["fit", "--config", "c.yaml"], tmp_path / "log.txt", start_new_session=True)
    assert process.wait(timeout=60) == 130, (tmp_path / "log.txt").read_text()[-3000:]
    assert read_checkpoint(tmp_path / "run/first/checkpoints/interrupted.ckpt")["global_step"] == 4
    said = (tmp_path / "log.txt").read_text()
    assert "a second signal ends at once" in said
    assert "--auto_resume true" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_slurm_job_of_one_process_is_queued_again(run, tmp_path, monkeypatch):
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told.txt\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    config = yaml.safe_load(run.config.read_text().replace(str(run.config.parent), str(tmp_path)))
    config["trainer"]["callbacks"].append(send_signal(signal.SIGUSR1, 2))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    (ended,) = run_together(tmp_path, ["fit", "--config", str(tmp_path / "c.yaml")], 1, srun)
    assert ended.code == 128 + signal.SIGUSR1, ended
    assert (tmp_path / "told.txt").read_text() == "requeue 17\n"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_ends_a_command_in_silence():
    process = subprocess.Popen(
        [sys.executable, "-m", "gau_alpha.cli", "methods", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 128 + signal.SIGPIPE
