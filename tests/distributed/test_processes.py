"""The command line on two processes: the same table to the last digit."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_run import rows
from tiny_data import tiny_run

from gau_alpha.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def checkpoint(slow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    corpus = folder / "corpus"
    corpus.mkdir()
    for number in range(13):
        (corpus / f"{number}.txt").write_text(" ".join(f"{(number * i) % 97}" for i in range(300)))
    config = tiny_run(folder, corpus, "one", {"save_last": True}, accelerator="cpu", max_steps=2, limit_val_batches=1)
    config["data"]["init_args"]["validation_fraction"] = 0.5
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(folder / "config.yaml")]) == 0
    return folder / "run/one/checkpoints/last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "many"), [(2, "ddp"), (3, "ddp"), (2, "fsdp")], ids=["2", "3", "fsdp"])
def test_more_processes_print_the_same_table(checkpoint, tmp_path, processes, many):
    """Seven documents, dealt unevenly."""
    tables = []
    for devices, file in ((1, "cpu"), (processes, many)):
        output = tmp_path / str(devices)
        options = ["--methods", "trained", "infoscale", "--length_ratios", "1", "8", "--tokens_per_batch", "128"]
        options += ["--trainer", f"{file}.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", str(devices)]
        options += ["--trainer.precision", "32-true"]
        command = [sys.executable, "-m", "gau_alpha.cli", "extrapolate", "--ckpt_path", str(checkpoint)]
        done = subprocess.run(
            [*command, "--output_dir", str(output), *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        tables.append(rows(output / "extrapolation.json"))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 4
    assert tables[0][0]["num_documents"] == 7


def within(some, more):
    """Whether all of a nested dict is in another."""
    if not isinstance(some, dict):
        return some == more
    return all(name in more and within(value, more[name]) for name, value in some.items())


@pytest.mark.parametrize("file", sorted((CONFIGS / "trainer").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_trainer_file_parses(file, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "demo.yaml", "--trainer", file.name, "--print_config"])
    assert stop.value.code == 0
    parsed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert within(yaml.safe_load(file.read_text()), parsed)
    assert parsed["limit_train_batches"] == 700  # the demo's own settings stay


@pytest.mark.slow
def test_the_slurm_job_is_that_of_the_trainer_file(capsys, monkeypatch):
    """SLURM is asked for as many processes as Lightning expects, and the command that it starts parses."""
    job = CONFIGS / "trainer/slurm.sbatch"
    subprocess.run(["bash", "-n", str(job)], check=True, timeout=10)
    text = job.read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.M))
    trainer = yaml.safe_load((CONFIGS / "trainer/slurm.yaml").read_text())
    assert int(asked["nodes"]) == trainer["num_nodes"]
    assert int(asked["ntasks-per-node"]) == int(asked["gpus-per-node"]) == trainer["devices"]
    assert asked["signal"] == "SIGUSR1@120"
    assert "requeue" in asked
    (command,) = re.findall(r"^srun .*?(gau-alpha(?:.*\\\n)*.*)$", text, re.M)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    words = shlex.split(os.path.expandvars(command.replace("\\\n", " ")))
    assert words[0] == "gau-alpha"
    with pytest.raises(SystemExit) as stop:
        main([*words[1:], "--print_config"])
    assert stop.value.code == 0
    parsed = yaml.safe_load(capsys.readouterr().out)
    assert parsed["auto_resume"] is True
    assert parsed["trainer"]["logger"]["init_args"]["version"] == "job_17"
    assert parsed["trainer"]["num_nodes"] == 2
