import copy

import pytest
import yaml
from pages import ROOT
from refusals import refused

from gau_alpha.attention.presets import TRAINED, display_name, load_preset
from gau_alpha.cli import main
from gau_alpha.cli.study.definition import Side, read_study
from gau_alpha.cli.study.runner import estimate, listed
from gau_alpha.cli.study.tasks import FINAL, tasks_of
from gau_alpha.extrapolation.calibration import is_calibrated

GOOD = {
    "base": "demo.yaml",
    "seeds": [0, 1],
    "trainings": {
        "softmax": None,
        "cosscale": {"parent": "softmax", "overrides": {"model": {"method": "cosscale"}}, "seeds": [1]},
    },
    "evaluations": {
        "main": {"methods": ["trained", "infoscale"], "options": {"length_ratios": [1, 4], "max_tokens": 4096}},
        "fitted": {"methods": ["calibrated", "yarn_calibrated"], "trainings": ["softmax"]},
    },
    "comparisons": [
        {
            "name": "cosine wins",
            "evaluation": "main",
            "length_ratio": 4,
            "first": {"training": "cosscale", "method": "trained"},
            "second": {"training": "softmax", "method": "infoscale"},
            "expect": "lower",
        }
    ],
}


def read(tmp_path, content):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(path)


def test_a_study_is_read_with_what_it_leaves_out(tmp_path):
    study = read(tmp_path, GOOD)
    assert study.base == ["demo.yaml"]
    assert study.trainings["softmax"].seeds == [0, 1]
    assert study.trainings["cosscale"].seeds == [1]
    assert study.evaluations["main"].trainings == ["softmax", "cosscale"]
    assert study.evaluations["main"].baseline == {"training": "softmax", "method": "trained"}
    assert study.comparisons[0].first == Side("cosscale", "trained", "main", 4)


def test_tasks_are_trainings_then_evaluations_with_what_they_need(tmp_path):
    tasks = tasks_of(read(tmp_path, GOOD), tmp_path / "out")
    shown = [(task.kind, task.name, task.seed, task.parent and task.parent.number) for task in tasks]
    assert shown == [
        ("training", "softmax", 0, None),
        ("training", "softmax", 1, None),
        ("training", "cosscale", 1, 2),
        ("evaluation", "main of softmax", 0, 1),
        ("evaluation", "main of softmax", 1, 2),
        ("evaluation", "main of cosscale", 1, 3),
        ("evaluation", "fitted of softmax", 0, 1),
        ("evaluation", "fitted of softmax", 1, 2),
    ]
    assert [task.number for task in tasks] == list(range(1, 9))
    (fit,) = tasks[2].commands
    assert fit[fit.index("--model.init_from") + 1] == str(tasks[1].folder / FINAL)
    assert [command[0] for command in tasks[6].commands] == ["calibrate", "calibrate", "extrapolate"]


def test_a_config_among_the_options_does_not_win_over_what_the_study_gives(tmp_path):
    content = edited(("evaluations", "fitted"), {"methods": ["calibrated"], "trainings": ["softmax"]})
    content["evaluations"]["fitted"] |= {"options": {"config": "a.yaml"}, "calibrate": {"config": "b.yaml"}}
    tasks = tasks_of(read(tmp_path, content), tmp_path / "out")
    for command in tasks[-1].commands:
        (config,) = (place for place, word in enumerate(command) if word.startswith("--config="))
        assert config < command.index("--ckpt_path")
    calibrate, extrapolate = tasks[-1].commands
    assert calibrate[-1] in next(word for word in extrapolate if word.startswith("--calibrations="))


def test_the_list_says_what_is_done_and_guesses_the_rest_by_it(tmp_path):
    tasks = tasks_of(read(tmp_path, GOOD), tmp_path / "out")
    assert "known once one is done" in estimate(tasks)
    tasks[0].begin()
    tasks[0].finish(60.0, resumed=False)
    tasks[1].begin()
    tasks[1].finish(1.0, resumed=True)  # says nothing of the whole
    lines = list(listed(tasks))
    assert [line.split()[6 if "of" in line.split()[:5] else 5] for line in lines[:3]] == ["done", "done", "left"]
    assert "about 0:01:00 and 5 of unknown length" in lines[-1]
    assert "6 of 8" in lines[-1]


def test_a_changed_base_is_refused_with_what_has_changed(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("model: {dropout: 0.1}\ndata: data.yaml\n")
    (tmp_path / "data.yaml").write_text("init_args: {batch_size: 4}\n")
    content = {**GOOD, "base": "base.yaml"}
    study = read(tmp_path, content)
    for task in tasks_of(study, tmp_path / "out"):
        task.begin()
    base.write_text("# a comment is no change\nmodel: {dropout: 0.1}\ndata: data.yaml\n")
    for task in tasks_of(study, tmp_path / "out"):
        task.check()
    (tmp_path / "data.yaml").write_text("init_args: {batch_size: 8}\n")
    for task in tasks_of(study, tmp_path / "out"):
        with pytest.raises(ValueError, match=r"batch_size: 4 then, 8 now"):
            task.check()


def begin(tmp_path, content):
    for task in tasks_of(read(tmp_path, content), tmp_path / "out"):
        task.begin()


def refusals(tmp_path, content):
    """What is said of those tasks that were begun as something else."""
    found = []
    for task in tasks_of(read(tmp_path, content), tmp_path / "out"):
        try:
            task.check()
        except ValueError as error:
            found.append(str(error))
    return found


def test_the_order_of_bases_is_a_setting(tmp_path):
    for name, rate in (("a", 0.1), ("b", 0.2)):
        (tmp_path / f"{name}.yaml").write_text(f"model: {{dropout: {rate}}}\n")
    content = {**GOOD, "base": ["a.yaml", "b.yaml"]}
    begin(tmp_path, content)
    assert refusals(tmp_path, content) == []
    found = refusals(tmp_path, {**GOOD, "base": ["b.yaml", "a.yaml"]})
    assert len(found) == 8
    assert all("order of base: ['a.yaml', 'b.yaml'" in one for one in found)


def test_bases_of_one_name_are_both_compared(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.yaml").write_text(f"model: {{{name}: 1}}\n")
    content = {**GOOD, "base": ["a/base.yaml", "b/base.yaml"]}
    begin(tmp_path, content)
    (tmp_path / "a" / "base.yaml").write_text("model: {a: 2}\n")
    found = refusals(tmp_path, content)
    assert len(found) == 8
    assert "model.a: 1 then, 2 now" in found[0]


def test_files_that_overrides_and_options_name_are_compared(tmp_path):
    for name in ("method", "data"):
        (tmp_path / f"{name}.yaml").write_text("scale: 8\n")
    content = edited(("trainings", "cosscale", "overrides", "model", "method"), "method.yaml")
    content["evaluations"]["fitted"]["options"] = {"data": str(tmp_path / "data.yaml")}
    begin(tmp_path, content)
    (tmp_path / "method.yaml").write_text("scale: 16\n")
    found = refusals(tmp_path, content)
    assert len(found) == 2, "one training and its evaluation"
    assert all("scale: 8 then, 16 now" in one for one in found)
    (tmp_path / "method.yaml").write_text("scale: 8\n")
    (tmp_path / "data.yaml").write_text("scale: 16\n")
    assert len(refusals(tmp_path, content)) == 2, "one evaluation over two seeds"


def test_a_finished_seed_of_a_comparison_is_not_left_out(tmp_path, capsys):
    for task in tasks_of(read(tmp_path, GOOD), tmp_path / "out"):
        task.begin()
        task.finish(1.0, resumed=False)
    command = ["study", str(tmp_path / "study.yaml"), "--output_dir", str(tmp_path / "out"), "--list"]
    assert main(command) == 0
    read(tmp_path, edited(("trainings", "softmax"), {"seeds": [1, 2]}))
    assert "seed_0 of softmax is finished" in refused(capsys, command)
    read(tmp_path, {**edited(("trainings", "softmax"), {"seeds": [1, 2]}), "comparisons": None})
    assert main(command) == 0


def test_one_training_may_change_while_others_stay(tmp_path):
    for task in tasks_of(read(tmp_path, GOOD), tmp_path / "out"):
        task.begin()
    changed = copy.deepcopy(GOOD)
    changed["trainings"]["cosscale"]["overrides"]["model"]["method"] = "ssmax"
    for task in tasks_of(read(tmp_path, changed), tmp_path / "out"):
        if "cosscale" in task.name:
            with pytest.raises(ValueError, match="'cosscale' then, 'ssmax' now"):
                task.check()
        else:
            task.check()


def edited(path, value):
    content = copy.deepcopy(GOOD)
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("seed",), [0], "unknown entry 'seed'.*seeds"),
        (("seeds",), [], "seeds must be a list of one or more"),
        (("seeds",), [0, 0], "a seed twice"),
        (("seeds",), [-1], "at least 0"),
        (("base",), "nowhere.yaml", "no file 'nowhere.yaml'"),
        (("base",), 3, "base must be a list"),
        (("trainings",), {}, "trainings must be a mapping"),
        (("trainings", "../x"), None, "letters, digits"),
        (("trainings", "softmax"), {"parent": "cosscale"}, "parent must be one of the trainings above it"),
        (("trainings", "cosscale", "seeds"), [7], r"its parent softmax is not trained with \[7\]"),
        (("trainings", "softmax"), {"override": {}}, "unknown entry 'override'.*overrides"),
        (("evaluations", "main"), {}, "lacks the entry methods"),
        (("evaluations", "main", "trainings"), ["bert"], "must be one of softmax, cosscale; got 'bert'"),
        (("evaluations", "main", "baseline"), {"training": "bert"}, "baseline.training must be one of"),
        (("comparisons", 0, "metric"), "luck", "metric must be one of loss"),
        (("comparisons", 0, "expect"), "within", "margin belong together"),
        (("comparisons", 0, "first"), {"training": "cosscale"}, "first lacks the entry method"),
        (("comparisons", 0, "evaluation"), "fitted", "first.training must be one of softmax"),
        (("comparisons", 0, "length_ratio"), 0, "at least 1"),
        (("comparisons",), {"a": 1}, "must be a list"),
        (("title",), 2024, "title must be a text, got 2024"),
        (("trainings", "cosscale", "parent"), ["softmax"], "parent must be one of"),
        (("trainings", "softmax"), {"overrides": {"ckpt_path": "a.ckpt"}}, "overrides has ckpt_path"),
        (("evaluations", "main", "options", "ckpt_path"), "a.ckpt", "options has ckpt_path, which a study decides"),
        (("evaluations", "main", "options", "time_budget"), 60, "options has time_budget"),
        (("evaluations", "fitted", "calibrate"), {"objective": "loss"}, "calibrate has objective"),
        (("evaluations", "main", "options", "protocol"), "[mlm, recall]", r"one of mlm.*; got '\[mlm, recall\]'"),
        (("evaluations", "main", "options", "protocol"), None, "protocol must be a list"),
        (("evaluations", "main", "methods"), ["x/a.yaml", "y/a.yaml"], "two that tables would call a"),
        (("evaluations", "main", "baseline"), {"method": "train"}, "baseline.method must be one of trained, infoscale"),
        (("comparisons", 0, "claim"), ["a"], "claim must be a text"),
        (("comparisons", 0, "second", "method"), "infoscal", "second.method must be one of trained, infoscale"),
        (("comparisons", 0, "length_ratio"), 64, r"length_ratio must be one of those of main \(1, 4\), got 64"),
        (("comparisons", 0, "metric"), "gain", "main measures no gain, by its options: protocol mlm"),
        (("comparisons", 0, "second"), {"training": "cosscale", "method": "trained"}, "first and second are the same"),
        (("trainings", "softmax"), {"seeds": [0]}, "cosscale.seeds: its parent softmax is not trained with"),
    ],
)
def test_a_mistake_is_named(tmp_path, path, value, said):
    with pytest.raises(ValueError, match=said):
        tasks_of(read(tmp_path, edited(path, value)), tmp_path / "out")


def test_what_attention_did_is_not_compared_where_nobody_looked(tmp_path):
    content = edited(("comparisons", 0, "metric"), "near_share")
    content["evaluations"]["main"]["options"]["distances"] = False
    with pytest.raises(ValueError, match="main measures no near_share, by its options: distances false"):
        read(tmp_path, content)
    content["comparisons"][0]["metric"] = "attention_entropy"
    read(tmp_path, content)
    content["evaluations"]["main"]["options"]["entropy"] = False
    with pytest.raises(ValueError, match="no attention_entropy, by its options: entropy false and distances false"):
        read(tmp_path, content)


def test_trainings_without_a_common_seed_are_not_compared(tmp_path):
    content = edited(("trainings", "cosscale"), {"seeds": [2, 3]})
    with pytest.raises(ValueError, match="share no seed"):
        read(tmp_path, content)


def test_an_entry_that_is_left_empty_is_left_out(tmp_path):
    content = copy.deepcopy(GOOD)
    content["trainings"]["softmax"] = {"overrides": None, "seeds": None}
    content["evaluations"]["main"] |= {"calibrate": None, "baseline": None, "trainings": None}
    content["evaluations"]["fitted"]["options"] = None
    assert read(tmp_path, {**content, "title": None}) == read(tmp_path, GOOD)


@pytest.mark.parametrize(("method", "shown"), [("x/mine.yaml", "mine"), ("training-free", "trained"), ("pi", "pi")])
def test_the_baseline_is_called_as_tables_call_it(tmp_path, method, shown):
    content = edited(("evaluations", "fitted", "methods"), [method])
    assert read(tmp_path, content).evaluations["fitted"].baseline["method"] == shown


def test_a_base_that_goes_on_from_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "base.yaml").write_text("ckpt_path: somewhere.ckpt\n")
    with pytest.raises(ValueError, match="names a ckpt_path"):
        tasks_of(read(tmp_path, {**GOOD, "base": "base.yaml"}), tmp_path / "out")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_name_what_there_is(path, tmp_path):
    study = read_study(path)
    tasks = tasks_of(study, tmp_path)
    assert len(tasks) > 5
    for evaluation in study.evaluations.values():
        shown = {display_name(method) for method in evaluation.methods}
        for method in evaluation.methods:
            assert is_calibrated(method) or method == TRAINED or load_preset(located(method, path))
        sides = [side for one in study.comparisons for side in (one.first, one.second)]
        assert {side.method for side in sides if side.evaluation == evaluation.name} <= shown
        assert evaluation.baseline["method"] in shown
    assert len(study.comparisons) <= 12


def located(method, study):
    return str(study.parent / method) if method.endswith(".yaml") else method
