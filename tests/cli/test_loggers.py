"""Loggers of other kinds than TensorBoard: stand-ins with the interfaces of W&B's and MLflow's, and CSV."""

import json
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import yaml
from lightning.pytorch.loggers import Logger
from matplotlib.image import imread

from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main

EVALUATION = {
    "class_path": "callbacks.extrapolation.ExtrapolationEvaluation",
    "init_args": {"every_n_train_steps": 2, "length_ratios": [1, 4], "methods": ["trained"], "max_documents": 2},
}


class StandIn(Logger):
    """A logger with one folder for all runs, whose runs are numbered as they begin."""

    made: ClassVar[list["StandIn"]] = []

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._save_dir, self._id = save_dir, None
        self.scalars, self.images, self.hyperparameters = {}, [], {}
        self.made.append(self)

    @property
    def save_dir(self):
        return self._save_dir

    @property
    def name(self):
        return "project"

    @property
    def version(self):
        return self._id

    def begin(self):
        self._id = self._id or uuid.uuid4().hex[:8]

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            self.scalars[name, step] = value

    def log_hyperparams(self, params, *args, **kwargs):
        self.hyperparameters |= params


class LikeWandb(StandIn):
    """``WandbLogger``: images by the logger's own ``log_image``."""

    @property
    def experiment(self):
        self.begin()
        return SimpleNamespace(id=self._id)

    def log_image(self, key, images, step=None):
        (image,) = images
        self.images.append((key, step, image))


class LikeMLflow(StandIn):
    """``MLFlowLogger``: images by the client's ``log_image``; an entry is a file, one with a slash below a folder."""

    @property
    def version(self):
        return self.run_id

    @property
    def run_id(self):
        self.begin()
        return self._id

    @property
    def experiment(self):
        return SimpleNamespace(log_image=self._image)

    def log_hyperparams(self, params, *args, **kwargs):
        for name in params:
            parents = {str(parent) for parent in Path(name).parents}
            assert not parents & params.keys(), f"{name} is below another entry"
        super().log_hyperparams(params)

    def _image(self, run_id, image, artifact_file=None):
        assert run_id == self._id
        name, _, step = artifact_file.removesuffix(".png").rpartition("_step_")
        self.images.append((name, int(step), image))


def config(run, folder, logger):
    content = yaml.safe_load(run.config.read_text())
    content["trainer"] |= {"logger": logger, "default_root_dir": str(folder)}
    content["trainer"] |= {"max_steps": 4, "val_check_interval": 2}
    content["trainer"]["callbacks"] += [EVALUATION]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["fit", "--config", str(path)]


@pytest.mark.parametrize("kind", [LikeWandb, LikeMLflow])
def test_scalars_and_figures_reach_it_and_each_run_has_its_folder(run, tmp_path, kind):
    StandIn.made.clear()
    logger = {"class_path": f"{__name__}.{kind.__name__}", "init_args": {"save_dir": str(tmp_path / "store")}}
    args = config(run, tmp_path, logger)
    for _ in range(2):
        assert main(args) == 0
    first, second = StandIn.made
    assert first.version != second.version
    for one in (first, second):
        assert {name for name, _ in one.scalars} >= {
            "train/loss", "train/learning_rate", "validation/loss", "epoch", "extrapolation/trained/x004/perplexity",
            "extrapolation/seconds",
        }  # fmt: skip
        assert [(name, step, image.dtype, image.ndim) for name, step, image in one.images] == [
            ("extrapolation/perplexity", step, np.uint8, 3) for step in (2, 4)
        ]
        assert one.hyperparameters["position"] == "RoPE"
        assert one.hyperparameters["position.base"] == 10_000
        folder = tmp_path / "store/project" / one.version
        names = {path.name for path in folder.iterdir()}
        assert names >= {"checkpoints", "config.yaml", "run.json", "run_files.json", "extrapolation"}
        assert {path.name for path in (folder / "extrapolation").iterdir()} == {"step_2", "step_4"}
        record, saved = json.loads((folder / "run.json").read_text()), folder / "checkpoints/last.ckpt"
        assert read_checkpoint(saved)["run"]["id"] == record["id"]
    assert sorted(path.name for path in (tmp_path / "store/project").iterdir()) == sorted(
        [first.version, second.version]
    )


def test_csv_gets_the_figure_as_a_file_beside_its_table(run, tmp_path):
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path), "name": "run", "version": "csv"},
    }
    assert main(config(run, tmp_path, logger)) == 0
    folder = tmp_path / "run/csv"
    assert "extrapolation/trained/x004/perplexity" in (folder / "metrics.csv").read_text().splitlines()[0]
    for step in (2, 4):
        assert imread(folder / f"extrapolation/perplexity_step_{step:06}.png").ndim == 3


def test_without_a_logger_the_run_has_a_folder_too(run, tmp_path, capsys):
    args = config(run, tmp_path, False)
    assert main(args) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"checkpoints", "run.json", "run_files.json", "extrapolation"}
    capsys.readouterr()
    assert main(args) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_auto_resume_asks_for_a_name_that_stays(run, tmp_path, capsys):
    logger = {"class_path": f"{__name__}.LikeWandb", "init_args": {"save_dir": str(tmp_path)}}
    assert main([*config(run, tmp_path, logger), "--auto_resume", "true"]) == 2
    assert "LikeWandb has no version: give one with --trainer.logger.init_args.version NAME" in capsys.readouterr().err
