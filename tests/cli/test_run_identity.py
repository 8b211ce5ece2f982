"""A run's folder is one run's: who may begin, go on, or replace it there, and what is removed."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
import yaml
from process_harness import holding

from callbacks.recovery.run_folder import FILES, LOCK, RunFolder, run_id_of
from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main

EXPERIMENT = "run/first"


def fit(run, folder, *more):
    return ["fit", "--config", str(run.config), "--trainer.logger.save_dir", str(folder), *more]


def owner(path):
    return run_id_of(read_checkpoint(path))


COSINE = ("--model.schedule", "gau_alpha.training.schedules.Cosine", "--model.schedule.final", "0.1")
"""A schedule that a longer run can go on from."""


@pytest.fixture(scope="module")
def untouched(run, tmp_path_factory):
    """The folder of a finished run that no other command was given."""
    folder = tmp_path_factory.mktemp("untouched")
    assert main(fit(run, folder)) == 0
    return folder / EXPERIMENT


@pytest.fixture
def own(untouched, tmp_path):
    """A copy of it, to do with as one likes."""
    shutil.copytree(untouched, tmp_path / "runs" / EXPERIMENT)
    return tmp_path / "runs" / EXPERIMENT


def listing(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_the_id_is_in_the_record_and_in_every_checkpoint(untouched):
    recorded = json.loads((untouched / FILES).read_text())
    last = untouched / "checkpoints/last.ckpt"
    assert owner(last) == recorded["id"] == json.loads((untouched / "run.json").read_text())["id"]
    assert set(recorded["files"]) == listing(untouched) - {FILES, LOCK}


@pytest.mark.slow
def test_another_run_of_the_same_settings_has_another_id(run, tmp_path):
    assert main(fit(run, tmp_path)) == 0
    assert owner(tmp_path / EXPERIMENT / "checkpoints/last.ckpt") != owner(run.checkpoint)


def test_a_fit_into_the_folder_of_a_run_is_refused_with_the_ways_out(run, own, capsys):
    before = listing(own)
    assert main(fit(run, own.parents[1])) == 2
    error = capsys.readouterr().err
    assert "holds a run already" in error
    assert "--auto_resume true" in error
    assert "--trainer.logger.version" in error
    assert "--overwrite true" in error
    assert listing(own) == before


@pytest.mark.slow
def test_overwrite_removes_the_files_that_are_listed_and_no_others(run, own, tmp_path, caplog):
    old = owner(own / "checkpoints/last.ckpt")
    (tmp_path / "precious").mkdir()
    for path in (
        own / "notes.txt",
        own / ".notes.2024",
        own / "checkpoints/kept.txt",
        tmp_path / "precious/config.yaml",
    ):
        path.write_text("mine")
    (own / "extrapolation").symlink_to(tmp_path / "precious")
    recorded = json.loads((own / FILES).read_text())
    recorded["files"].append("extrapolation/config.yaml")
    (own / FILES).write_text(json.dumps(recorded))
    with caplog.at_level("INFO"):
        assert main(fit(run, own.parents[1], "--overwrite", "true")) == 0
    assert "still holds what no run has listed: .notes.2024, checkpoints, extrapolation, notes.txt" in caplog.text
    assert owner(own / "checkpoints/last.ckpt") != old
    assert len(list(own.glob("events.*"))) == 1
    assert not (own / "config_1.yaml").exists()
    for path in (
        own / "notes.txt",
        own / ".notes.2024",
        own / "checkpoints/kept.txt",
        tmp_path / "precious/config.yaml",
    ):
        assert path.read_text() == "mine"
    assert yaml.safe_load((own / "config.yaml").read_text())["overwrite"] is False, "the record would remove the run"
    assert main(fit(run, own.parents[1], "--overwrite", "true")) == 0, "a second time"


@pytest.mark.parametrize("files", [["../precious.txt"], ["/etc/passwd"], "config.yaml", [3]])
def test_a_list_that_leads_out_of_the_folder_is_refused(run, own, tmp_path, capsys, files):
    (own.parent / "precious.txt").write_text("mine")
    (own / FILES).write_text(json.dumps({"id": "0" * 32, "files": files}))
    assert main(fit(run, own.parents[1], "--overwrite", "true")) == 2
    assert "below its folder" in capsys.readouterr().err
    assert (own.parent / "precious.txt").exists()


@pytest.mark.slow
def test_auto_resume_takes_only_checkpoints_of_its_own_run(run, tmp_path, caplog):
    shutil.copy(run.checkpoint, "kept.ckpt")  # in the working directory, where Lightning would look under SLURM
    shutil.copy(run.checkpoint, "hpc_ckpt_1.ckpt")
    args = fit(run, tmp_path, "--auto_resume", "true", *COSINE)
    with caplog.at_level("INFO"):
        assert main(args) == 0
    last = tmp_path / EXPERIMENT / "checkpoints/last.ckpt"
    assert "starting afresh" in caplog.text
    assert (tmp_path / EXPERIMENT / "checkpoints/epoch=0-step=3.ckpt").exists(), "nothing was trained"
    shutil.copy(run.checkpoint, last.with_name("newer.ckpt"))
    caplog.clear()
    with caplog.at_level("INFO"):
        assert main([*args, "--trainer.max_steps", "4"]) == 0
    assert "newer.ckpt was saved by another run" in caplog.text
    assert f"resuming from {last}" in caplog.text
    assert read_checkpoint(last)["global_step"] == 4
    assert owner(last) != owner(run.checkpoint)


def test_auto_resume_begins_nothing_among_checkpoints_of_an_unknown_run(run, own, capsys):
    (own / FILES).unlink()
    assert main(fit(run, own.parents[1], "--auto_resume", "true")) == 2
    assert "not recorded here (epoch=0-step=3.ckpt, last.ckpt)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_new_run_from_a_named_checkpoint_remembers_its_parent(run, tmp_path, capsys):
    assert main(fit(run, "parent", *COSINE)) == 0
    parent = Path("parent", EXPERIMENT, "checkpoints/last.ckpt").absolute()
    more = ("--ckpt_path", str(parent), "--trainer.max_steps", "4", *COSINE)
    assert main(fit(run, tmp_path, *more)) == 0
    last = tmp_path / EXPERIMENT / "checkpoints/last.ckpt"
    assert read_checkpoint(last)["run"]["parent"] == owner(parent) != owner(last)
    assert main(fit(run, tmp_path, *more)) == 2, "the folder holds the new run now"
    assert "was saved by another" in capsys.readouterr().err
    assert main(fit(run, tmp_path, "--ckpt_path", str(last), "--trainer.max_steps", "5", *COSINE)) == 0, "its own"
    assert read_checkpoint(last)["run"]["parent"] == owner(parent)


@pytest.mark.parametrize("stored", ["../../x", "A" * 32, 7, None, ["a"]])
def test_an_id_is_plain_text_or_none(stored):
    assert run_id_of({"run": {"id": stored}}) is None
    assert run_id_of({"run": stored}) is None


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--auto_resume", "true"), ("--overwrite", "true")])
def test_a_folder_in_use_is_refused_with_host_and_process(run, own, capsys, more):
    before = listing(own)
    with holding(own / LOCK) as process:
        assert main(fit(run, own.parents[1], *more)) == 2
    assert f"in use by process {process} on {socket.gethostname()}" in capsys.readouterr().err
    assert listing(own) == before


@pytest.mark.slow
def test_a_lock_ends_with_its_process(run, own):
    with holding(own / LOCK):
        pass
    assert main(fit(run, own.parents[1], "--overwrite", "true")) == 0


@pytest.mark.slow
def test_a_mistake_before_the_first_batch_leaves_the_folder_free(run, tmp_path):
    assert main(fit(run, tmp_path, "--trainer.val_check_interval", "100000")) == 2
    assert listing(tmp_path / "run") == {f"first/{LOCK}"}
    assert main(fit(run, tmp_path)) == 0


def test_a_fast_dev_run_and_one_that_keeps_nothing_claim_no_folder(run, own):
    before = listing(own)
    assert main(fit(run, own.parents[1], "--trainer.fast_dev_run", "true")) == 0
    assert listing(own) == before
    nothing = ["--trainer.logger", "false", "--trainer.enable_checkpointing", "false", "--trainer.callbacks", "[]"]
    for _ in range(2):
        assert main(["fit", "--config", str(run.config), *nothing, "--trainer.default_root_dir", "."]) == 0
    assert not os.path.exists(FILES)


def test_what_killed_processes_left_is_removed_where_the_run_lists_the_file(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin()
    folder.add(tmp_path / "checkpoints/last.ckpt")
    (tmp_path / "checkpoints").mkdir()
    ending = f"{'0' * 32}.gau-alpha-unfinished"
    left = tmp_path / f"checkpoints/.last.ckpt.{ending}"
    others = [
        tmp_path / f"checkpoints/.mine.ckpt.{ending}",
        tmp_path / "checkpoints/.last.ckpt.2024",
        tmp_path / ".n.1",
    ]
    for path in (left, *others):
        path.write_text("half")
    link = tmp_path / f"checkpoints/.last.ckpt.{'1' * 32}.gau-alpha-unfinished"
    link.symlink_to(others[1])
    assert RunFolder(tmp_path).remove_unfinished() == [left]
    assert all(path.exists() for path in (*others, link))


def test_a_checkpoint_of_a_run_reads_as_ever(run):
    assert isinstance(torch.load(run.checkpoint, weights_only=True)["run"]["id"], str)
