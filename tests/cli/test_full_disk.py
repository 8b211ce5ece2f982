"""A disk that is full while a checkpoint is saved: the one before survives, and the error says what did not fit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

MOUNTED = 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'
NAMESPACES = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])


def namespace():
    """A command that runs another where it may mount file systems; None if the machine has none."""
    for words in NAMESPACES:
        try:
            done = subprocess.run([*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return words
    return None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "limit"])
def test_the_checkpoint_before_survives_a_full_disk(tmp_path, run, kind):
    """On a real file system of 4 MB where the machine lets one be mounted, and by a limit to the size of files."""
    before = []
    folder = tmp_path / "run"
    folder.mkdir()
    if kind == "disk":
        words = namespace()
        if words is None:
            pytest.skip("this machine lets nobody mount a small file system; the limit to the size of files is tested")
        before = [*words, "bash", "-c", MOUNTED, str(folder)]
    saver = {"every_n_train_steps": 1, "enable_version_counter": False}
    callbacks = [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver}]
    config = yaml.safe_load(run.config.read_text())
    there = {"default_root_dir": str(folder), "logger": False, "callbacks": callbacks, "limit_val_batches": 0}
    config["trainer"].update(there)
    config["model"]["schedule"] = {"class_path": "gau_alpha.training.schedules.Linear", "init_args": {"final": 0.5}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    script = Path(__file__).with_name("full_disk.py")
    command = [*before, sys.executable, str(script), str(tmp_path / "config.yaml"), str(folder), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["disk"] == 4 << 20) == (kind == "disk")
    (name,) = [name for name in said["before"] if name.endswith(".ckpt")]
    new = name.replace("step=2", "step=3")
    assert said["code"] == 1
    assert f"The disk is full: {folder / new} could not be written" in said["error"]
    assert " bytes were, then no more;" in said["error"]
    assert " bytes are free beside them" in said["error"]
    assert "Traceback" not in said["error"]
    assert [x for x in said["during"] if x.endswith(".ckpt") or "/." in f"/{x}"] == [name], "nothing half-written stays"
    assert said["unchanged"]
    assert said["again"] == 0
    assert name.replace("step=2", "step=4") in said["after"], "where there is room again, the same command goes on"
