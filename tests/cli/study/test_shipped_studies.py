"""The studies that are shipped: each can be listed, and the paper's works from end to end when it is cut down."""

import shutil
from typing import Any

import pytest
import yaml
from pages import ROOT
from tiny_data import text_files, write_texts

from gau_alpha.cli import main
from gau_alpha.cli.study.definition import read_study
from gau_alpha.cli.study.results import Results
from gau_alpha.cli.study.tasks import tasks_of

SHIPPED = ROOT / "configs" / "study"
BASES = ("base", "handbooks", "published")  # the others beside paper.yaml are methods


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_can_be_listed(path, tmp_path):
    study = read_study(path)
    assert tasks_of(study, tmp_path)
    assert 0 < len(study.comparisons) <= 12


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SHIPPED.glob("paper/*.yaml")) if path.stem not in BASES],
    ids=lambda path: path.stem,
)
def test_each_method_of_the_paper_study_is_one(path, capsys):
    assert main(["methods", str(path)]) == 0
    assert path.stem in capsys.readouterr().out


@pytest.mark.slow
def test_the_paper_study_cut_down(tmp_path):
    small: dict[str, Any] = {
        "trainer": {"max_epochs": -1, "max_steps": 60, "limit_train_batches": None, "val_check_interval": None,
                    "limit_val_batches": 2},
        "model": {"config": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}},
        "data": text_files(tmp_path, write_texts(tmp_path / "corpus", range(130, 150))),
    }  # fmt: skip
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    shutil.copytree(SHIPPED / "paper", tmp_path / "paper")
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(cut_down(yaml.safe_load((SHIPPED / "paper.yaml").read_text())), sort_keys=False))
    folder = tmp_path / "out"

    assert main(["study", str(path), "--output_dir", str(folder)]) == 0
    study = read_study(path)
    results = Results.read(study, folder / "results.parquet")
    assert len(results.rows) == 2 * 2 * 2 * 4  # trainings, seeds, methods, lengths
    assert {row["status"] for row in results.rows} == {"ok"}
    of_tasks = Results.of_tasks(study, tasks_of(study, folder))
    assert results.verdicts == of_tasks.verdicts
    assert [one.comparison.name[:2] for one in results.verdicts] == ["1.", "5a"]
    assert all(one.difference is not None and one.difference.num_seeds == 2 for one in results.verdicts)


def cut_down(study: dict[str, Any]) -> dict[str, Any]:
    """Two trainings, two seeds, two methods."""
    trainings = ["softmax", "cosscale_16"]
    methods = {"baselines": ["trained", "infoscale"], "cosine_baselines": ["trained", "cosscale_infoscale"]}
    study["base"].append("small.yaml")
    study["trainings"] = {name: {**study["trainings"][name], "seeds": [0, 1]} for name in trainings}
    study["evaluations"] = {name: {**study["evaluations"][name], "methods": chosen} for name, chosen in methods.items()}
    kept = []
    for one in study["comparisons"]:
        common = {name: value for name, value in one.items() if name not in ("first", "second")}
        sides = [common | one[name] for name in ("first", "second")]
        if all(side["method"] in methods.get(side["evaluation"], ()) for side in sides):
            kept.append(one)
    study["comparisons"] = kept
    return study
