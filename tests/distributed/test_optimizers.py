"""Muon and WSD through the command line: resumed bit for bit on one process and on two, and sharded."""

import math
from pathlib import Path

import pytest
import torch
from process_harness import alone, differences, run_together, torchrun
from small_run import on_cpu, write_config, write_corpus

from gau_alpha.checkpoints import read_checkpoint

MUON = ["--model.optimizer", "Muon", "--model.optimizer.learning_rate", "0.01", "--model.schedule", "WSD"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


def fit(folder: Path, corpus: Path, file: str, processes: int, *more: str) -> Path:
    config = write_config(folder, corpus)
    args = ["fit", "--config", str(config), *MUON, *on_cpu(file, processes), *more]
    done = run_together(folder, args, processes, torchrun if processes > 1 else alone)
    assert [one.code for one in done] == [0] * processes, done
    assert done[0].output.count("optimizer: Muon (hidden matrices, by Muon: 4 tensors, ") == 1
    return folder / "run/one/checkpoints"


@pytest.mark.slow
@pytest.mark.parametrize(("file", "processes"), [("cpu.yaml", 1), ("ddp.yaml", 2), ("fsdp.yaml", 2)])
def test_muon_goes_on_bit_for_bit(corpus, tmp_path, file, processes):
    undisturbed = fit(tmp_path / "whole", corpus, file, processes)
    middle = undisturbed / "epoch=0-step=4.ckpt"
    resumed = fit(tmp_path / "resumed", corpus, file, processes, "--ckpt_path", str(middle))
    assert differences(undisturbed / "last.ckpt", resumed / "last.ckpt") == []
    state = read_checkpoint(resumed / "last.ckpt")
    assert state["global_step"] == 8
    (optimizer,) = state["optimizer_states"]
    kept = [set(optimizer["state"][name]) for name in optimizer["param_groups"][0]["params"]]
    assert kept == [{"momentum_buffer"}] * 4
    assert state["hyper_parameters"]["optimizer"]["class_path"] == "gau_alpha.training.optimizers.Muon"
    assert not torch.equal(*(_weight(read_checkpoint(path)) for path in (middle, undisturbed / "last.ckpt")))


def _weight(checkpoint):
    return checkpoint["state_dict"]["model.gau_alpha.encoder.layer.1.gau.i_dense.weight"]


@pytest.mark.slow
def test_sharded_matrices_take_the_step_of_whole_ones(corpus, tmp_path):
    """Newton–Schulz sees all of a matrix, whichever process has its rows; in bfloat16, so not to the last digit."""
    weights = []
    for file in ("ddp.yaml", "fsdp.yaml"):
        path = fit(tmp_path / file, corpus, file, 2, "--trainer.max_steps", "1")
        weights.append(read_checkpoint(path / "last.ckpt")["state_dict"])
    compared = 0
    for name in (name for name in weights[0] if name.endswith("_dense.weight")):
        ours, theirs = (one[name] for one in weights)
        step = 0.2 * 0.01 / 1.1 * math.sqrt(ours.numel())  # of match_rms_adamw in the only step, which is warm-up
        assert (ours - theirs).norm() < 0.05 * step
        compared += 1
    assert compared == 4
