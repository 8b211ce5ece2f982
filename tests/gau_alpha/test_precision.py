"""The decision between float32 and bfloat16 follows what was measured, and processes agree on it."""

import pytest
import torch

from gau_alpha import precision
from gau_alpha.trainer import GAUAlphaTrainer


@pytest.fixture(autouse=True)
def _undecided(monkeypatch):
    monkeypatch.setenv(precision._DECIDED, "")  # so that what is set is taken back
    monkeypatch.delenv(precision._DECIDED)


@pytest.mark.parametrize(("rates", "decision"), [((2e11, 8e11), "bf16-mixed"), ((2.9e11, 1.7e11), "32-true")])
def test_the_faster_is_taken_and_kept(rates, decision, monkeypatch, capsys):
    monkeypatch.setattr(precision, "product_rates", lambda device: rates)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    assert GAUAlphaTrainer(precision="auto", **quiet).precision == decision
    assert f"precision: {decision} (products at {rates[0] / 1e9:.0f} GFLOP/s" in capsys.readouterr().out
    monkeypatch.setattr(precision, "product_rates", lambda device: rates[::-1])
    assert precision.measured_precision("cpu") == decision, "a process of this run decides alike"
    assert GAUAlphaTrainer(**quiet).precision == "32-true", "Lightning's default"


def test_side_by_side_processes_have_to_be_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"precision auto is measured by one process.*32-true or bf16-mixed"):
        precision.measured_precision("cpu")


def test_rates_are_measured_without_random_numbers():
    before = torch.get_rng_state()
    assert all(rate > 1e6 for rate in precision.product_rates(torch.device("cpu"), size=64, runs=1))
    assert torch.equal(torch.get_rng_state(), before)
