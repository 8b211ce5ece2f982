"""The commands as a user types them."""

import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from pages import ROOT, blocks, text
from refusals import refused

from gau_alpha.attention.method import AXES
from gau_alpha.attention.presets import load_preset, method_from, preset_names
from gau_alpha.cli import main
from gau_alpha.cli.commands import COMMANDS
from gau_alpha.cli.lightning import gather_lists
from gau_alpha.cli.shipped import with_shipped_files
from gau_alpha.scaling import InfoScale, NoScaling
from gau_alpha.similarity import CosScale

FEW = ["--length_ratios", "1", "4", "--max_documents", "2"]


@pytest.fixture
def used(monkeypatch):
    """Which scalings compute temperatures, and which similarities prepare queries."""
    seen = set()
    for cls, name in ((InfoScale, "temperature"), (NoScaling, "temperature"), (CosScale, "prepare")):
        original = getattr(cls, name)

        def record(self, *args, original=original, cls=cls):
            seen.add(cls.__name__)
            return original(self, *args)

        monkeypatch.setattr(cls, name, record)
    return seen


def test_fit_leaves_config_record_and_checkpoint(run):
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["model"]["config"]["hidden_size"] == 16
    assert config["seed_everything"] == 1
    record = json.loads((run.folder / "run.json").read_text())
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or record["versions"]["torch"]
    assert {"command", "python", "platform", "versions", "git"} <= record.keys()
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert checkpoint["run"]["config"]["data"]["init_args"]["train_length"] == 16
    assert checkpoint["global_step"] == 3


def test_a_run_that_goes_on_overwrites_no_config(run, tmp_path):
    args = ["fit", "--config", str(run.config), "--trainer.max_steps", "1", "--trainer.callbacks", "[]"]
    args += ["--trainer.logger.save_dir", str(tmp_path), "--auto_resume", "true"]
    assert main(args) == 0
    first = (tmp_path / "run/first/config.yaml").read_text()
    assert main([*args, "--model.optimizer.learning_rate", "0.5"]) == 0
    assert (tmp_path / "run/first/config.yaml").read_text() == first
    again = yaml.safe_load((tmp_path / "run/first/config_1.yaml").read_text())
    assert again["model"]["optimizer"]["init_args"]["learning_rate"] == 0.5


def test_the_saved_config_runs_again(run, tmp_path):
    args = ["fit", "--config", str(run.folder / "config.yaml"), "--trainer.logger.save_dir", str(tmp_path)]
    assert main(args) == 0
    weights = [
        torch.load(path, weights_only=True)["state_dict"]
        for path in (run.checkpoint, tmp_path / "run/first/checkpoints/last.ckpt")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_extrapolate_needs_nothing_but_the_checkpoint(run, tmp_path, capsys):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), *FEW, "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "trained", "infoscale"]) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    assert [(row["method"], row["length"]) for row in content["rows"]] == [
        ("trained", 16),
        ("infoscale", 16),
        ("trained", 64),
        ("infoscale", 64),
    ]
    at = {(row["method"], row["length"]): row for row in content["rows"]}
    assert at["trained", 16]["loss"] == at["infoscale", 16]["loss"]  # τ(train_length) = 1
    assert at["trained", 64]["loss"] != at["infoscale", 64]["loss"]
    assert all(row["status"] == "ok" and row["num_targets"] > 0 for row in content["rows"])
    assert {row["kernel"] for row in content["rows"]} == {"blocked"}
    for suffix in ("csv", "md", "png"):
        assert (tmp_path / f"extrapolation.{suffix}").stat().st_size > 0
    assert "infoscale" in capsys.readouterr().out


def test_a_method_for_another_similarity_is_flagged(run, tmp_path):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), *FEW, "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "softmax", "cosscale"]) == 0
    notes = {row["method"]: row["note"] for row in json.loads((tmp_path / "extrapolation.json").read_text())["rows"]}
    assert "similarity" in notes["cosscale"]
    assert "similarity" not in notes["softmax"]


def test_several_checkpoints_in_one_table(run, tmp_path):
    common = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "cosine"]
    assert main(["fit", "--config", str(run.config), *common, "--model.method", "cosscale"]) == 0
    other = tmp_path / "run/cosine/checkpoints/last.ckpt"
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), str(other), *FEW, "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "softmax", "cosscale_infoscale", "windowed"]) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    methods = {row["method"] for row in content["rows"]}
    assert methods == {"softmax", "cosscale_infoscale", "windowed (first)", "windowed (cosine)"}
    assert content["run"]["checkpoints"]["softmax"] == str(run.checkpoint)
    assert content["run"]["checkpoints"]["cosscale_infoscale"] == str(other)


def test_calibrated_needs_nothing_but_the_checkpoint_once_it_was_calibrated(run, tmp_path, capsys):
    checkpoint = tmp_path / "copy" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(run.checkpoint.read_bytes())
    ratios = ["--length_ratios", "1", "4", "16", "--data.validation_fraction", "0.5", "--allow_mismatch", "true"]
    calibrate = ["calibrate", "--ckpt_path", str(checkpoint), *ratios, "--num_documents", "1"]
    assert main(calibrate) == 0
    table = checkpoint.with_name("last.calibrated.json")
    assert str(table) in capsys.readouterr().out
    assert json.loads(table.read_text())["scaling"]["init_args"]["lengths"] == [16, 64, 256]
    assert main([*calibrate, "--method", "infoscale", "--output", str(tmp_path / "mine.json")]) == 0
    args = ["extrapolate", "--ckpt_path", str(checkpoint), *ratios]
    assert main([*args, "--methods", "trained", "calibrated"]) == 0
    content = json.loads((tmp_path / "copy" / "extrapolation.json").read_text())
    at = {(row["method"], row["length"]): row for row in content["rows"]}
    assert at["trained", 16]["loss"] == at["calibrated", 16]["loss"]
    assert at["trained", 256]["loss"] != at["calibrated", 256]["loss"]
    whole = len(at) and main([*args, "--methods", "trained", "--output_dir", str(tmp_path / "whole")])
    assert whole == 0
    rows = json.loads((tmp_path / "whole" / "extrapolation.json").read_text())["rows"]
    assert [row["num_documents"] - 1 for row in rows] == [at["trained", n]["num_documents"] for n in (16, 64, 256)], (
        "what was calibrated on is not evaluated on"
    )
    assert len(content["run"]["evaluations"]["mlm"]["left_out"]) == 1
    files = ["--calibrations", str(table), str(tmp_path / "mine.json"), "--output_dir", str(tmp_path / "both")]
    assert main([*args, "--methods", "calibrated", "infoscale_calibrated", *files]) == 0


def test_random_keys_takes_entropies_from_the_calibration(run, tmp_path, capsys):
    checkpoint = tmp_path / "runs/demo/cosscale/checkpoints/last.ckpt"  # where the guide has it
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(run.checkpoint.read_bytes())
    ratios = ["--length_ratios", "1", "4", "--data.validation_fraction", "0.5", "--allow_mismatch", "true"]
    extrapolate = ["extrapolate", "--ckpt_path", str(checkpoint), *ratios, "--methods", "trained", "random_keys"]
    capsys.readouterr()
    assert main(extrapolate) == 2
    assert "There is no calibration" in capsys.readouterr().err
    assert main(["calibrate", "--ckpt_path", str(checkpoint), *ratios, "--num_documents", "1"]) == 0
    table = checkpoint.with_name("last.calibrated.json")
    content = json.loads(table.read_text())
    for layer in content["provenance"]["entropy_before"], content["provenance"]["entropy_after"]:
        layer[0][0], layer[1][0] = 1.5, 1.0  # a model this young attends to all keys alike, which is refused
    table.write_text(json.dumps(content))
    assert main(extrapolate) == 0
    report = json.loads((tmp_path / "runs/demo/cosscale/extrapolation.json").read_text())
    at = {(row["method"], row["length"]): row for row in report["rows"]}
    assert at["trained", 16]["loss"] == at["random_keys", 16]["loss"]
    assert at["trained", 64]["loss"] != at["random_keys", 64]["loss"]
    assert report["run"]["methods"]["random_keys"]["scaling"]["init_args"]["entropy"] == [1.5, 1.0]
    assert len(report["run"]["evaluations"]["mlm"]["left_out"]) == 1
    # and so does the guide's Python
    (block,) = (one for one in blocks(text(ROOT / "docs/published_code.md"), "python") if "RandomKeysScale" in one)
    names: dict = {}
    exec(compile(block.replace("train_length=64", "train_length=16"), "published_code.md", "exec"), names)
    assert names["scaling"].describe()["init_args"]["entropy"] == [1.5, 1.0]
    content["provenance"]["entropy_before"][1] = ["much"]
    table.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(extrapolate) == 2
    assert "Each of entropy" in capsys.readouterr().err


def test_checkpoints_that_differ_in_their_seed_are_summed_up(run, tmp_path, capsys):
    common = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "second"]
    assert main(["fit", "--config", str(run.config), *common, "--seed_everything", "7"]) == 0
    other = tmp_path / "run/second/checkpoints/last.ckpt"
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), str(other), *FEW, "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "trained", "infoscale", "--baseline", "infoscale (second)"]) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    assert content["run"]["baseline"] == "infoscale (second)"
    groups = {(one["group"], one["length"]): one for one in content["groups"]}
    assert set(groups) == {(method, length) for method in ("trained", "infoscale") for length in (16, 64)}
    losses = [row["loss"] for row in content["rows"] if row["group"] == "trained" and row["length"] == 64]
    assert groups["trained", 64]["loss"] == pytest.approx(sum(losses) / 2)
    assert groups["trained", 64]["loss_deviation"] == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)
    baselines = {row["method"]: row["baseline"] for row in content["rows"]}
    assert set(baselines.values()) == {"", "infoscale (second)"}, "one baseline, also across checkpoints"
    assert baselines["infoscale (second)"] == ""
    assert "2 checkpoints" in capsys.readouterr().out


def test_options_of_an_evaluation_reach_the_table(run, tmp_path):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "trained", "--length_ratios", "1", "4"]
    args += [
        "--protocol",
        "single-mask",
        "--positions_per_document",
        "6",
        "--span_position",
        "aligned",
        "--latex",
        "true",
    ]
    args += ["--data.validation_fraction", "0.5", "--allow_mismatch", "true"]
    assert main([*args, "--max_tokens", "2000", "--output_dir", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    first, second = content["rows"]
    assert (first["protocol"], first["span_position"]) == ("single-mask", "aligned")
    assert first["num_targets"] == 6 * first["num_documents"]
    assert first["num_positions"] == 16 * first["num_documents"]
    assert first["num_documents"] == second["num_documents"] == 2000 // (6 * 64)
    assert "trained" in (tmp_path / "extrapolation.tex").read_text()


@pytest.mark.parametrize("asked", ["flag", "yaml", "preset"])
@pytest.mark.parametrize("command", ["validate", "extrapolate"])
def test_the_method_asked_for_is_the_one_that_runs(run, tmp_path, used, command, asked):
    """LightningCLI by itself lets the checkpoint win, which would fake every training-free result."""
    ways = {
        "flag": ["--model.method.scaling", "InfoScale"],
        "yaml": ["--config", str(tmp_path / "asked.yaml")],
        "preset": ["--model.method", "infoscale"],
    }
    (tmp_path / "asked.yaml").write_text("model: {method: {scaling: gau_alpha.scaling.InfoScale}}\n")
    args = [command, *ways[asked], "--ckpt_path", str(run.checkpoint)]
    args += ["--methods", "trained", *FEW, "--output_dir", str(tmp_path)] if command == "extrapolate" else []
    assert main(args) == 0
    assert "InfoScale" in used
    assert "NoScaling" not in used


def test_the_method_asked_for_runs_under_a_keyword_path(run, used):
    # Lightning finds last.ckpt in the folder of the config's ModelCheckpoint.
    callback = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": str(run.checkpoint.parent), "save_last": True},
    }
    args = ["validate", "--config", str(run.config), "--ckpt_path", "last"]
    args += ["--trainer.callbacks", json.dumps([callback])]
    assert main([*args, "--model.method.scaling", "InfoScale"]) == 0
    assert "InfoScale" in used
    assert "NoScaling" not in used


def test_without_being_asked_the_checkpoints_method_runs(run, tmp_path, used):
    fit = ["fit", "--config", str(run.config), "--trainer.logger.save_dir", str(tmp_path)]
    assert main([*fit, "--model.method.similarity", "CosScale", "--model.method.scaling", "InfoScale"]) == 0
    used.clear()
    validate = ["validate", "--ckpt_path", str(tmp_path / "run/first/checkpoints/last.ckpt")]
    validate += ["--trainer.logger", "false"]
    assert main(validate) == 0
    assert used == {"CosScale", "InfoScale"}
    used.clear()
    # asking for one axis leaves the others as trained
    assert main([*validate, "--model.method.scaling", "NoScaling"]) == 0
    assert used == {"CosScale", "NoScaling"}


@pytest.mark.parametrize("command", ["test", "predict"])
def test_lightnings_other_commands_run(run, command):
    assert main([command, "--ckpt_path", str(run.checkpoint), "--trainer.logger", "false"]) == 0


def methods(capsys, *args):
    assert main(["methods", *args]) == 0
    return capsys.readouterr().out


def test_methods_lists_every_preset_within_120_columns(capsys):
    table, notes = methods(capsys).split("\n\n")
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[1:]] == preset_names()
    assert max(map(len, (*lines, *notes.splitlines()))) <= 120
    assert "…" not in table, "each has a sentence that fits"
    assert all(len(re.split("  +", line)) == 3 for line in lines)
    by_name = {line.split()[0]: line for line in lines}
    assert by_name["infoscale"].endswith("training-free  InfoScale (arXiv 2501.08570) on dot-product attention")
    assert "  trained        ALiBi (arXiv 2108.12409)" in by_name["alibi"]
    assert "NoScaling" not in table


def test_methods_shows_axes_where_there_is_room(capsys):
    lines = methods(capsys, "--wide").split("\n\n")[0].splitlines()
    assert lines[0].split() == ["method", "needs", *AXES, "turns", "paper"]
    (swan,) = (line for line in lines if line.startswith("swan "))
    for part in ("RoPE()", "Window()", "every 4 layers NoPosition() · Full()", "arXiv 2305.19466"):
        assert part in swan


def test_methods_as_json(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("scaling: InfoScale\n")
    listed = json.loads(methods(capsys, "--json", "--train_length", "32", "mine.yaml"))
    assert (listed["train_length"], listed["key_size"]) == (32, 128)
    found = {one["method"]: one for one in listed["methods"]}
    assert list(found) == [*preset_names(), "mine"]
    assert found["mine"]["explanation"] == "InfoScale()"
    assert found["pi"]["explanation"] == "Position interpolation (arXiv 2306.15595)"
    assert found["mine"]["like"] == {"method": "infoscale", "difference": 0.0}
    assert found["mine"]["similarity"] is None
    assert found["softmax"]["needs"] == "training-free"
    assert method_from({axis: found["swan"][axis] for axis in (*AXES, "every", "full") if found["swan"][axis]}).turns
    assert found["kerple"]["needs"] == "trained"


def test_methods_tells_which_temperatures_are_nearly_the_same(capsys):
    """Llama 4's differs from InfoScale's by 2 % at 64 tokens; LogN by far more; other axes make another method."""
    notes = methods(capsys).split("\n\n")[1].splitlines()
    assert "  llama4 differs from infoscale by at most 2 %" in notes
    assert not [note for note in notes if note.startswith(("  logn", "  pi_infoscale", "  ssmax", "  calibrated"))]
    tau = {
        name: load_preset(name)["scaling"].with_train_length(64).temperature(2 ** torch.arange(6, 13), 128)
        for name in ("infoscale", "llama4")
    }
    assert 0.01 < (tau["llama4"] / tau["infoscale"] - 1).abs().max() < 0.02
    assert "≈" not in methods(capsys, "--train_length", "2048")
    later = methods(capsys, "--train_length", "512", "--key_size", "64")
    assert "at train_length 512 and\nup to 64 times that length, key size 64:\n" in later
    assert "  softmax_plus differs from logn by at most 0 %\n" in later


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--train_length", "1"], "train_length must be at least 2, got 1"),
        (["--key_size", "0"], "key_size must be at least 2, got 0"),
        (["nowhere.yaml"], "There is no method file 'nowhere.yaml'"),
    ],
)
def test_methods_refuses_nonsense(capsys, args, message):
    assert message in refused(capsys, ["methods", *args])


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)


def help_of(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits_on_a_screen(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "120")
    text = help_of(capsys, command, "--help")
    assert text.startswith(f"usage: gau-alpha {command}")
    assert len(text.splitlines()) <= 56
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("command", "own"), [("fit", "ckpt_path"), ("extrapolate", "methods"), ("predict", "ckpt_path")]
)
def test_a_commands_own_options_come_first(capsys, command, own):
    short, whole = help_of(capsys, command, "--help"), help_of(capsys, command, "--help_all")
    assert short.index(f"  --{own} ") < short.index("--config") < short.index("--model ") < short.index("--trainer ")
    assert whole.index(f"--{own} ") < whole.index("--model.optimizer") < whole.index("--trainer.max_steps")
    assert "SUPPRESS" not in short
    assert "Stop training after this number of steps" in whole


@pytest.mark.slow
def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "gau_alpha.cli", "methods"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "infoscale" in done.stdout


def test_lists_are_gathered():
    args = ["extrapolate", "--methods", "a", "b", "--seed", "3", "--length_ratios", "1", "--ckpt_path=x"]
    assert gather_lists(args) == [
        "extrapolate",
        "--methods=[a,b]",
        "--seed",
        "3",
        "--length_ratios=[1]",
        "--ckpt_path=x",
    ]
    # as the help shows it
    assert gather_lists(["--length_ratios", "[1,8]", "--seed", "3"]) == ["--length_ratios=[1,8]", "--seed", "3"]


@pytest.mark.slow
def test_shipped_files_are_found_by_name_and_the_users_own_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = with_shipped_files(["fit", "--config", "demo.yaml", "--trainer=cpu.yaml", "--data", "mine.yaml"])
    assert args[2].endswith("configs/demo.yaml")
    assert args[3].endswith("configs/trainer/cpu.yaml")
    assert args[5] == "mine.yaml"
    (tmp_path / "demo.yaml").mkdir()
    assert with_shipped_files(["--config", "demo.yaml"])[1] == args[2]
    (tmp_path / "demo.yaml").rmdir()
    (tmp_path / "demo.yaml").write_text("")
    assert with_shipped_files(["--config", "demo.yaml"])[1] == "demo.yaml"


def test_groups_of_methods_leave_out_what_has_no_table(run, tmp_path, capsys):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--length_ratios", "1", "--max_documents", "2"]
    assert main([*args, "--methods", "training-free", "--output_dir", str(tmp_path), "--entropy", "false"]) == 0
    said = capsys.readouterr().out
    for name, objective in (("calibrated", "entropy"), ("random_keys", "entropy"), ("fitted", "loss")):
        command = f"gau-alpha calibrate --objective {objective}"
        assert f"note: {name} is left out: it has no table yet; `{command}` makes one" in said
    assert "note: modernbert is left out: Every 3 layers one is full, but there are 2" in said
    rows = json.loads((tmp_path / "extrapolation.json").read_text())["rows"]
    methods = [row["method"] for row in rows]
    assert methods[0] == "trained"
    assert {"softmax", "infoscale", "windowed", "yarn_infoscale"} <= set(methods)
    assert not {"cosscale", "alibi", "ssmax", "calibrated"} & set(methods), "nothing that has to be trained"
    page = (tmp_path / "extrapolation.html").read_text()
    assert "<th colspan='2'>fewer keys</th>" in page


def test_temperatures_fitted_to_the_loss_stand_beside_those_of_entropy(run, tmp_path, capsys):
    checkpoint = tmp_path / "copy" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(run.checkpoint.read_bytes())
    common = ["--ckpt_path", str(checkpoint), "--length_ratios", "1", "4"]
    common += ["--data.validation_fraction", "0.5", "--allow_mismatch", "true"]
    for objective in ("entropy", "loss"):
        assert main(["calibrate", *common, "--num_documents", "1", "--objective", objective]) == 0
    fitted = json.loads(checkpoint.with_name("last.fitted.json").read_text())
    assert fitted["provenance"]["objective"] == "loss"
    assert len(fitted["scaling"]["init_args"]["temperatures"]) == 1, "one for all layers"
    assert len(json.loads(checkpoint.with_name("last.calibrated.json").read_text())["scaling"]["init_args"]) == 2
    assert main(["extrapolate", *common, "--methods", "trained", "calibrated", "fitted"]) == 0
    content = json.loads((tmp_path / "copy" / "extrapolation.json").read_text())
    losses = {(row["method"], row["length"]): row["loss"] for row in content["rows"]}
    assert losses["trained", 16] == losses["fitted", 16]
    assert len({losses[name, 64] for name in ("trained", "calibrated", "fitted")}) == 3
    assert len(content["run"]["evaluations"]["mlm"]["left_out"]) == 1, "what was fitted on is not evaluated on"
    used = content["run"]["methods"]["fitted"]["scaling"]["init_args"]
    assert used["temperatures"] == fitted["scaling"]["init_args"]["temperatures"]
    assert main(["calibrate", *common, "--objective", "lost"]) == 2
    assert "objective='lost' is unknown; choose one of: entropy, loss" in capsys.readouterr().err
    wrong = ["--calibrations", str(checkpoint.with_name("last.calibrated.json"))]
    assert main(["extrapolate", *common, "--methods", "fitted", *wrong]) == 2
    assert "--objective loss" in capsys.readouterr().err
