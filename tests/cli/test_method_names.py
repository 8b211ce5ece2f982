"""A preset's name works wherever a method can be written, and so do files and classes of the user's own."""

import json

import pytest
import torch
import yaml
from refusals import refused as refusal

from gau_alpha.attention.presets import method_from, preset_names
from gau_alpha.checkpoints import METHOD_KEY
from gau_alpha.checkpoints.fields import METHOD_FIELDS
from gau_alpha.cli import main
from gau_alpha.cli.shipped import method_named
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.training.module import GAUAlphaModule

OWN_CLASS = "from gau_alpha.scaling import NoScaling\n\n\nclass Mine(NoScaling):\n    pass\n"


@pytest.fixture
def chosen(capsys):
    """The method that ``fit`` makes of arguments: class and arguments by axis."""

    def parse(*args):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", "demo.yaml", *map(str, args), "--print_config"])
        out, error = capsys.readouterr()
        assert stop.value.code == 0, error
        axes = yaml.safe_load(out)["model"]["method"]["init_args"]
        return {
            axis: (one["class_path"].rpartition(".")[2], one.get("init_args", {})) for axis, one in axes.items() if one
        }

    return parse


@pytest.fixture
def refused(capsys):
    return lambda *args: refusal(capsys, ["fit", "--config", "demo.yaml", *args, "--print_config"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax_plus", "pi_infoscale", "streaming_llm"])
def test_a_preset_is_the_same_on_the_command_line_in_a_yaml_and_in_python(chosen, tmp_path, name):
    (tmp_path / "run.yaml").write_text(f"model: {{method: {name}}}\n")
    (tmp_path / "model.yaml").write_text(f"method: {name}\n")
    described = method_from(name).describe()
    for args in (("--model.method", name), ("--config", "run.yaml")):
        axes = chosen("--model.method", "null", *args)
        expected = {axis: strategy["class_path"].rpartition(".")[2] for axis, strategy in described.items()}
        assert {axis: cls for axis, (cls, _) in axes.items()} == {axis: expected[axis] for axis in axes}
        assert all(arguments == described[axis]["init_args"] for axis, (_, arguments) in axes.items())
    assert chosen("--model.method", "null", "--model", "model.yaml") == axes


def test_a_normalizer_is_chosen_like_any_other_axis(chosen):
    axes = chosen("--model.method", "entmax15", "--model.method.normalizer", "SinkSoftmax")
    assert axes["normalizer"] == ("SinkSoftmax", {"logit": 0.0, "learned": True})
    assert chosen("--model.method", "relu_squared")["normalizer"][0] == "ReLUSquared"


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_known_by_its_name(name):
    assert method_from(method_named(name)).describe() == method_from(name).describe()


@pytest.mark.slow
def test_what_lies_in_the_working_directory_does_not_matter(chosen, tmp_path):
    (tmp_path / "cosscale").mkdir()
    (tmp_path / "infoscale").write_bytes(b"\xff\0")
    (tmp_path / "infoscale.yaml").mkdir()
    (tmp_path / "run.yaml").write_text("model: {method: infoscale}\n")
    assert chosen("--model.method", "cosscale")["similarity"] == ("CosScale", {"scale": 16.0})
    assert chosen("--model.method=infoscale")["scaling"][0] == "InfoScale"
    assert chosen("--config", "run.yaml")["scaling"][0] == "InfoScale"


def test_what_is_said_later_is_laid_over_a_preset(chosen, tmp_path):
    (tmp_path / "cosine.yaml").write_text("model: {method: cosscale}\n")
    (tmp_path / "interpolated.yaml").write_text("model: {method: pi_infoscale}\n")
    scale = ["--model.method.similarity.init_args.scale", "8"]
    for preset in (["--model.method", "cosscale"], ["--config", "cosine.yaml"]):
        axes = chosen(*preset, *scale, "--model.method.scaling", "InfoScale")
        assert axes["similarity"] == ("CosScale", {"scale": 8.0})
        assert axes["scaling"][0] == "InfoScale"
        assert axes["position"][0] == "RoPE"
    axes = chosen("--config", "cosine.yaml", "--config", "interpolated.yaml", "--model.method.visibility", "Window")
    assert [axes[axis][0] for axis in ("similarity", "scaling", "position", "visibility")] == [
        "CosScale",
        "InfoScale",
        "PositionInterpolation",
        "Window",
    ]


@pytest.mark.slow
def test_files_of_the_users_own_are_found_beside_the_yaml_that_names_them(chosen, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.yaml").write_text("scaling: beside.Mine\n")
    (folder / "beside.py").write_text(OWN_CLASS)
    (folder / "run.yaml").write_text("model: {method: mine.yaml}\n")
    assert chosen("--model.method", "elsewhere/mine.yaml")["scaling"][0] == "Mine"
    assert chosen("--config", "elsewhere/run.yaml")["scaling"][0] == "Mine"
    (tmp_path / "softmax.yaml").write_text("scaling: InfoScale\n")  # a file's name is a file, if there is one
    assert chosen("--model.method", "softmax.yaml")["scaling"][0] == "InfoScale"
    assert chosen("--model.method", "softmax")["scaling"][0] == "NoScaling"


def test_a_name_that_is_none_lists_what_there_is(refused, tmp_path):
    (tmp_path / "run.yaml").write_text("model: {method: infoscal}\n")
    (tmp_path / "infoscal").write_text("scaling: InfoScale\n")
    for args in (["--model.method", "infoscal"], ["--config", "run.yaml"]):
        error = refused(*args)
        assert "model.method: unknown method 'infoscal'" in error
        assert all(name in error for name in preset_names())
    (tmp_path / "run.yaml").write_text("model: {method: no/such.yaml}\n")
    for args in (["--model.method", "no/such.yaml"], ["--config", "run.yaml"]):
        assert "model.method: there is no method file 'no/such.yaml'" in refused(*args)


def test_a_folder_may_name_a_preset(run, tmp_path):
    assert main(["convert", str(run.checkpoint), str(tmp_path / "model")]) == 0
    path = tmp_path / "model" / "config.json"
    sizes = {name: value for name, value in json.loads(path.read_text()).items() if name not in METHOD_FIELDS}
    path.write_text(json.dumps({**sizes, METHOD_KEY: "infoscale"}))
    scaling = GAUAlphaForMaskedLM.from_pretrained(tmp_path / "model").method.scaling
    assert (type(scaling).__name__, scaling.train_length) == ("InfoScale", 16)
    path.write_text(json.dumps({**sizes, METHOD_KEY: "infoscal"}))
    with pytest.raises(ValueError, match=f"{METHOD_KEY}: unknown method 'infoscal'; choose from: alibi"):
        GAUAlphaForMaskedLM.from_pretrained(tmp_path / "model")


def test_a_checkpoint_may_name_a_preset(run, tmp_path, capsys):
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    checkpoint["hyper_parameters"]["method"] = "infoscale"
    torch.save(checkpoint, tmp_path / "named.ckpt")
    assert GAUAlphaModule.load_from_checkpoint(tmp_path / "named.ckpt").model.method.scaling.train_length == 16
    assert main(["convert", str(tmp_path / "named.ckpt"), str(tmp_path / "model")]) == 0
    assert json.loads((tmp_path / "model" / "config.json").read_text())[METHOD_KEY]["scaling"] == {
        "class_path": "gau_alpha.scaling.InfoScale",
        "init_args": {"train_length": 16, "minimum": 0.0, "count": "visible"},
    }
    checkpoint["hyper_parameters"]["method"] = "infoscal"
    torch.save(checkpoint, tmp_path / "named.ckpt")
    with pytest.raises(ValueError, match=r"named.ckpt: hyper_parameters.method: unknown method 'infoscal'"):
        GAUAlphaModule.load_from_checkpoint(tmp_path / "named.ckpt")
