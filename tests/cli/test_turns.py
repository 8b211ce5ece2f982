"""Layers in turns and other normalizers from a YAML to a table: training, evaluation, folders, what is refused."""

import json
from pathlib import Path

import pytest
import yaml
from refusals import refused
from small_runs import extrapolate, results, train

from gau_alpha import GAUAlphaForMaskedLM
from gau_alpha.cli import main
from gau_alpha.extrapolation.statistics import flags
from gau_alpha.normalizer import SinkSoftmax
from gau_alpha.position import NoPosition
from gau_alpha.visibility import Full, Window

TURNS = {
    "scaling": "InfoScale",
    "normalizer": "SinkSoftmax",
    "every": 2,
    "local": {"visibility": {"class_path": "Window", "init_args": {"radius": 3}}},
    "full": {"position": "NoPosition", "visibility": "Full"},
}


@pytest.fixture
def checkpoint(run, tmp_path) -> Path:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TURNS))
    return train(run, tmp_path, "turns", **{"model.method": "mine.yaml"})


def test_from_a_yaml_to_a_table(checkpoint, capsys):
    methods = ["--methods", "trained", "infoscale", "softmax", "windowed"]
    said = refused(capsys, ["extrapolate", "--ckpt_path", str(checkpoint), *methods, "modernbert_infoscale"])
    assert "Every 3 layers one is full, but there are 2" in said
    assert extrapolate(checkpoint, more=methods) == 0
    rows = {row["method"]: row for row in results() if row["length_ratio"] == 2}
    assert rows["trained"]["loss"] == rows["infoscale"]["loss"], "what was trained stays in local and in full layers"
    assert flags(rows["trained"]["note"]) == flags(rows["infoscale"]["note"]) == []
    assert 0 < rows["trained"]["sink_share"] < 1
    assert rows["softmax"]["sink_share"] is None
    assert "normalizer overridden" in rows["softmax"]["note"]
    assert "trained without rotations" in rows["softmax"]["note"]
    assert rows["windowed"]["loss"] != rows["trained"]["loss"]
    described = json.loads(Path("out/extrapolation.json").read_text())["run"]["methods"]
    assert described["trained"]["every"] == 2
    assert "every" not in described["softmax"]


def test_a_folder_and_a_new_run_keep_turns(checkpoint, run, tmp_path):
    assert main(["convert", str(checkpoint), "folder"]) == 0
    model = GAUAlphaForMaskedLM.from_pretrained("folder")
    local, full = (block.gau.method for block in model.gau_alpha.encoder.blocks())
    assert [type(local.visibility), type(full.visibility), type(full.position)] == [Window, Full, NoPosition]
    assert isinstance(full.normalizer, SinkSoftmax)
    again = train(run, tmp_path, "again", **{"model.init_from": str(checkpoint), "trainer.max_steps": 1})
    assert main(["validate", "--ckpt_path", str(again), "--trainer.logger", "false"]) == 0


def test_calibrating_layers_that_see_little_is_refused_by_name(checkpoint, capsys):
    capsys.readouterr()
    args = ["calibrate", "--ckpt_path", str(checkpoint), "--length_ratios", "1", "2", "--num_documents", "2"]
    assert "Window(radius=3) lets a query see at most 7" in refused(capsys, args)


def test_more_layers_to_a_turn_than_there_are_is_refused(run, capsys):
    args = ["fit", "--config", str(run.config), "--model.method", "swan", "--trainer.logger.version", "x"]
    assert "Every 4 layers one is full, but there are 2" in refused(capsys, args)
