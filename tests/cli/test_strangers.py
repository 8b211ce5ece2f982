"""Files from strangers are data: nothing in a file says what runs, what is read unsaid, or where is written."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fuzzing import HOSTILE, MARKER
from refusals import refused as refusal
from safetensors.torch import load_file

from gau_alpha import GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main
from gau_alpha.cli.provenance import environment_info
from gau_alpha.cli.stored_data import data_of
from gau_alpha.extrapolation import ResultCache
from gau_alpha.training.fsdp import ShardedStrategy

POWER_LAW = """
from gau_alpha.scaling import Scaling

class PowerLaw(Scaling):
    def __init__(self, power: float = 0.05, train_length: int | None = None) -> None:
        super().__init__()
        self.power = power
        self.train_length = train_length

    def temperature(self, num_visible_keys, key_size):
        return (num_visible_keys.float() / self.train_length).clamp_min(1) ** self.power
"""


@pytest.fixture
def evil(tmp_path):
    """The working directory holds a module that leaves a marker where it is imported."""
    (tmp_path / "evil_things.py").write_text(HOSTILE)
    yield "evil_things.Evil"
    assert not (tmp_path / MARKER).exists()
    assert "evil_things" not in sys.modules


def changed(run, path, *keys, value):
    """Write the run's checkpoint with another value at a place."""
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    inner = checkpoint
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    torch.save(checkpoint, path)
    return str(path)


def refused(args, capsys, *words):
    error = refusal(capsys, args)
    assert not [word for word in words if word not in error], error


READING = {
    "validate": lambda path: ["validate", "--ckpt_path", path, "--trainer.logger", "false"],
    "predict": lambda path: ["predict", "--ckpt_path", path],
    "extrapolate": lambda path: ["extrapolate", "--ckpt_path", path],
    "calibrate": lambda path: ["calibrate", "--ckpt_path", path],
    "convert": lambda path: ["convert", path, "converted"],
}

# places of a checkpoint that name what is built
PLACES = {
    "method": (("hyper_parameters", "method", "scaling"), "hyper_parameters.method.scaling"),
    "schedule": (("hyper_parameters", "schedule"), "hyper_parameters.schedule"),
    "data": (("run", "config", "data"), "data"),
    "source": (("run", "config", "data", "init_args", "source"), "data.TextDataModule.source"),
    "tokenizer": (("run", "config", "data", "init_args", "tokenizer"), "data.TextDataModule.tokenizer"),
}


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoint_can_not_name_a_module_of_the_working_directory(run, evil, tmp_path, capsys, command, place):
    keys, field = PLACES[place]
    path = changed(run, tmp_path / "theirs.ckpt", *keys, value={"class_path": evil, "init_args": {}})
    refused(READING[command](path), capsys, "theirs.ckpt", field, evil, f"--trust {evil}")


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("function", ["os.mkdir", "pathlib.Path.mkdir", "os.makedirs", "builtins.open"])
def test_a_head_can_not_be_a_function(run, tmp_path, capsys, command, function):
    head = {"class_path": function, "init_args": {"name": "made"}}
    path = changed(run, tmp_path / "theirs.ckpt", "hyper_parameters", "head", value=head)
    refused(READING[command](path), capsys, "theirs.ckpt", function)
    refused(["fit", "--config", str(run.config), "--ckpt_path", path, "--trainer.logger", "false"], capsys, function)
    assert not Path("made").exists()


def test_init_from_a_strangers_checkpoint(run, evil, tmp_path, capsys):
    place = ("hyper_parameters", "method", "position")
    path = changed(run, tmp_path / "theirs.ckpt", *place, value={"class_path": evil, "init_args": {}})
    refused(["fit", "--config", str(run.config), "--model.init_from", path], capsys, evil)


def test_fill_mask_of_a_strangers_checkpoint(run, evil, tmp_path, capsys):
    place = ("hyper_parameters", "method", "visibility")
    path = changed(run, tmp_path / "theirs.ckpt", *place, value={"class_path": evil, "init_args": {}})
    refused(["fill-mask", "--model", path, "a[MASK]"], capsys, evil)
    with pytest.raises(ValueError, match=rf"trust=\['{evil}'\]"):
        GAUAlphaModule.load_from_checkpoint(path)


@pytest.fixture
def folder(run, tmp_path):
    """A Hugging Face folder whose config.json can be changed."""
    made = tmp_path / "folder"
    assert main(["convert", str(run.checkpoint), str(made), "--weights_only"]) == 0
    stored = json.loads((made / "config.json").read_text())

    def change(**fields):
        (made / "config.json").write_text(json.dumps({**stored, **fields}))
        return made

    return change


def test_config_json_can_not_name_what_runs(run, folder, evil, capsys, tmp_path):
    method = json.loads((folder() / "config.json").read_text())["attention_method"]
    theirs = folder(attention_method={**method, "scaling": {"class_path": evil, "init_args": {}}}, normalization=None)
    with pytest.raises(ValueError, match=f"attention_method.scaling names '{evil}'"):
        GAUAlphaForMaskedLM.from_pretrained(theirs)
    refused(["fill-mask", "--model", str(theirs), "a[MASK]"], capsys, evil)
    refused(["convert", str(theirs), "x.ckpt", "--train_length", "16"], capsys, evil)
    refused(["fit", "--config", str(run.config), "--model.init_from", str(theirs)], capsys, evil)
    theirs = folder(attention_method=method, head={"class_path": "os.mkdir", "init_args": {"name": "made"}})
    refused(["convert", str(theirs), "x.ckpt", "--train_length", "16"], capsys, "os.mkdir")
    assert not Path("made").exists()


def test_a_class_of_ones_own_is_trusted_where_it_is_named(run, folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_scaling.py").write_text(POWER_LAW)
    own = {"class_path": "my_scaling.PowerLaw", "init_args": {"power": 0.1, "train_length": 16}}
    path = changed(run, tmp_path / "mine.ckpt", "hyper_parameters", "method", "scaling", value=own)
    small = ["--length_ratios", "1", "4", "--max_documents", "2", "--output_dir", "out", "--methods", "trained"]
    refused(["extrapolate", "--ckpt_path", path, *small], capsys, "--trust my_scaling.PowerLaw")
    assert "my_scaling" not in sys.modules
    assert main(["extrapolate", "--ckpt_path", path, *small, "--trust", "my_scaling.PowerLaw"]) == 0
    assert main(["fill-mask", "--model", path, "a[MASK]", "--trust=my_scaling.PowerLaw"]) == 0
    # in a YAML that the user has typed
    (tmp_path / "mine.yaml").write_text("scaling: my_scaling.PowerLaw\n")
    assert main(["extrapolate", "--ckpt_path", path, *small[:-1], "mine.yaml"]) == 0
    refused(["fill-mask", "--model", path, "a[MASK]"], capsys, "--trust my_scaling.PowerLaw")
    method = {"scaling": own}
    theirs = folder(attention_method=method, normalization=None, norm_method=None)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = GAUAlphaForMaskedLM.from_pretrained(theirs, trust=["my_scaling.PowerLaw"])
    assert model.method.scaling.power == 0.1
    assert GAUAlphaModule.load_from_checkpoint(path, trust=["my_scaling.PowerLaw"]).model.method.scaling.power == 0.1
    del sys.modules["my_scaling"]


def test_what_is_trusted_must_be_of_the_kind(run, tmp_path, capsys):
    (tmp_path / "my_other.py").write_text("class Other:\n    def __init__(self) -> None: open('made', 'w')\n")
    path = changed(run, tmp_path / "mine.ckpt", "hyper_parameters", "method", "scaling", value="my_other.Other")
    refused(["fill-mask", "--model", path, "a[MASK]", "--trust", "my_other.Other"], capsys, "no Scaling")
    assert not Path("made").exists()
    del sys.modules["my_other"]


@pytest.mark.parametrize("value", ["", "PowerLaw", "a b.c", "../x.py", "x."])
def test_trust_takes_a_class_path(run, capsys, value):
    refused(["fill-mask", "--model", str(run.checkpoint), "a[MASK]", f"--trust={value}"], capsys, "--trust")


@pytest.mark.slow
@pytest.mark.parametrize("start", [["-m", "gau_alpha.cli"], ["-c", "import sys; sys.path.remove(''); "]])
def test_a_library_of_the_working_directory_is_not_imported(run, tmp_path, start):
    """``pandas`` is imported by what we use, when it is there: it must not be the file that happens to lie here."""
    for name in ("pandas", "matplotlib", "pyarrow", "yaml", "litlogger", "tensorboardX", "psutil"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "mine.yaml").write_text("scaling: gau_alpha.scaling.InfoScale\n")
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "trained", "mine.yaml"]
    args += ["--length_ratios", "1", "4", "--max_documents", "2", "--output_dir", "out"]
    if start[0] == "-c":  # as the installed command does, whose path begins with its own folder
        start = ["-c", f"{start[1]}from gau_alpha.cli import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run([sys.executable, *start, *args], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / MARKER).exists()


def test_nothing_is_written_where_a_checkpoint_says(run, tmp_path):
    path = changed(
        run, tmp_path / "theirs.ckpt", "run", "config", "data", "init_args", "cache_dir", value=str(tmp_path / "theirs")
    )
    assert main(["validate", "--ckpt_path", path, "--trainer.logger", "false"]) == 0
    assert not (tmp_path / "theirs").exists()


def test_what_is_read_because_a_checkpoint_says_so_is_said_first(run, tmp_path, capsys, caplog):
    private = tmp_path / "private.txt"
    private.write_text("a secret " * 100)
    place = ("run", "config", "data", "init_args", "source", "init_args", "paths")
    path = changed(run, tmp_path / "theirs.ckpt", *place, value=[str(private)])
    with caplog.at_level("INFO"):
        main(["extrapolate", "--ckpt_path", path, "--length_ratios", "1", "--output_dir", "out"])
    said = [record.getMessage() for record in caplog.records]
    assert any(str(private) in line and "theirs.ckpt" in line for line in said)
    data = yaml.safe_load(run.config.read_text())["data"]
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    caplog.clear()
    with caplog.at_level("INFO"):
        args = ["--length_ratios", "1", "--output_dir", "out2", "--max_documents", "1"]
        assert main(["extrapolate", "--ckpt_path", path, "--data", "data.yaml", *args]) == 0
    assert not [record for record in caplog.records if str(private) in record.getMessage()]


def test_convert_copies_no_file_that_a_checkpoint_names(run, tmp_path, capsys):
    private = tmp_path / "private.json"
    shutil.copy(Path(__file__).parent / "conftest.py", private)
    place = ("run", "config", "data", "init_args", "tokenizer")
    value = {"class_path": "datamodules.TokenizerFile", "init_args": {"path": str(private)}}
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert set(checkpoint["run"]["tokenizer"]) == {"tokenizer.json", "tokenizer_config.json"}
    del checkpoint["run"]["tokenizer"]
    checkpoint["run"]["config"]["data"]["init_args"]["tokenizer"] = value
    torch.save(checkpoint, tmp_path / "theirs.ckpt")
    assert main(["convert", str(tmp_path / "theirs.ckpt"), "made"]) == 0
    assert "--tokenizer" in capsys.readouterr().err
    assert not list(Path("made").glob("tok*"))
    # one that can be opened is not copied either
    carried = torch.load(run.checkpoint, weights_only=True)["run"]["tokenizer"]["tokenizer.json"]
    private.write_text(carried)
    assert main(["convert", str(tmp_path / "theirs.ckpt"), "made", "--overwrite"]) == 0
    assert not list(Path("made").glob("tok*"))
    args = ["made", "--overwrite", "--tokenizer", str(private)]
    assert main(["convert", str(tmp_path / "theirs.ckpt"), *args]) == 0
    assert Path("made/tokenizer.json").read_text() == carried
    assert place[-1] == "tokenizer"


def test_third_party_classes_are_not_built(run, tmp_path, capsys):
    value = {"class_path": "lightning.pytorch.demos.boring_classes.BoringDataModule", "init_args": {}}
    path = changed(run, tmp_path / "theirs.ckpt", "run", "config", "data", value=value)
    refused(["validate", "--ckpt_path", path], capsys, "BoringDataModule", "TextDataModule")


def test_control_characters_are_shown_and_not_obeyed(run, tmp_path, capsys):
    path = changed(
        run, tmp_path / "theirs.ckpt", "hyper_parameters", "method", "scaling", value="\x1b[2J\x1b]0;x\x07.A"
    )
    capsys.readouterr()
    assert main(["fill-mask", "--model", path, "a[MASK]"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert r"\x1b[2J" in error


@pytest.mark.parametrize(
    "state",
    [
        {"best_model_path": "/etc/hostname"},
        {"dirpath": "/tmp/a", "last_model_path": "/tmp/a/../b"},
        {"dirpath": "/tmp/a", "best_k_models": {"s3://bucket/x": 1.0}},
    ],
)
def test_a_checkpoint_names_no_file_that_lightning_would_remove(run, tmp_path, capsys, state):
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    (name,) = (name for name in checkpoint["callbacks"] if name.startswith("ModelCheckpoint"))
    place = ("callbacks", name)
    path = changed(run, tmp_path / "theirs.ckpt", *place, value={**state, "best_model_score": None})
    refused(["fit", "--config", str(run.config), "--ckpt_path", path, "--trainer.max_steps", "5"], capsys, "dirpath")


def test_sizes_are_compared_before_memory_is_taken(run, folder, tmp_path, capsys):
    for name, value in (("hidden_size", 10_000_000), ("num_hidden_layers", 10**9), ("vocab_size", 10**12)):
        path = changed(run, tmp_path / "theirs.ckpt", "hyper_parameters", "config", name, value=value)
        refused(["fill-mask", "--model", path, "a[MASK]"], capsys, "theirs.ckpt", name)
        theirs = folder(**{name: value})
        refused(["fill-mask", "--model", str(theirs), "a[MASK]"], capsys, str(theirs), name)
    expanded = torch.zeros(1).expand(10_000_000, 16)
    weights = torch.load(run.checkpoint, weights_only=True)["state_dict"]
    path = changed(run, tmp_path / "theirs.ckpt", "state_dict", next(iter(weights)), value=expanded)
    refused(["fill-mask", "--model", path, "a[MASK]"], capsys, "fewer numbers")


def test_ours_are_what_they_were(run, folder):
    """The weights that come out are those that went in, whatever is checked on the way."""
    weights = torch.load(run.checkpoint, weights_only=True)["state_dict"]
    stored = load_file(folder() / "model.safetensors")
    assert stored
    assert all(torch.equal(weights[f"model.{name}"], tensor) for name, tensor in stored.items())


# What is trusted by accident: nothing


@pytest.mark.parametrize("command", [*READING, "fill-mask"])
def test_a_file_that_is_named_like_a_class_is_a_file(run, tmp_path, capsys, command):
    """``last.CKPT`` could be the class CKPT of a module last that lies beside it."""
    (tmp_path / "evil_things.py").write_text(HOSTILE.replace("Evil", "CKPT"))
    changed(run, tmp_path / "evil_things.CKPT", "hyper_parameters", "method", "scaling", value="evil_things.CKPT")
    args = READING.get(command, lambda path: ["fill-mask", "--model", path, "a[MASK]"])("evil_things.CKPT")
    refused(args, capsys, "--trust evil_things.CKPT")
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("setting", ["ckpt_path", "name", "label"])
def test_text_of_a_yaml_that_looks_like_a_class_is_text(run, evil, tmp_path, capsys, setting):
    path = changed(run, tmp_path / "theirs.ckpt", "hyper_parameters", "method", "scaling", value=evil)
    if setting == "label":  # of a table, which a stranger may have written as well
        module = GAUAlphaModule.load_from_checkpoint(run.checkpoint)
        module.hparams["labels"] = [evil]
        with pytest.raises(ValueError, match="--trust"):
            module.on_load_checkpoint(torch.load(path, weights_only=True))
        return
    settings = {"ckpt_path": evil} if setting == "ckpt_path" else {"trainer": {"logger": {"init_args": {"name": evil}}}}
    Path("theirs.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(path, "theirs.CKPT")
    refused(["validate", "--config", "theirs.yaml", "--ckpt_path", "theirs.CKPT"], capsys, f"--trust {evil}")


def test_who_names_a_class_of_a_library_has_not_named_what_that_library_imports(run, tmp_path, capsys):
    """Every YAML names ``datamodules.…``; it does not follow that datamodules may import what lies here."""
    (tmp_path / "jieba.py").write_text(HOSTILE)
    settings = yaml.safe_load(run.config.read_text())
    masking = {"class_path": "datamodules.WholeWordMasking"}
    masking["init_args"] = {"segmenter": "datamodules.masking.Jieba"}
    settings["data"]["init_args"]["masking"] = masking
    Path("mine.yaml").write_text(yaml.safe_dump(settings))
    refused(["fit", "--config", "mine.yaml", "--trainer.logger", "false"], capsys, "pip install jieba")
    assert not Path(MARKER).exists()


def test_a_class_of_ones_own_in_a_yaml_that_a_yaml_names(run, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "my_scaling_helper.py").write_text("import my_scaling_constants\n")
    (tmp_path / "my_scaling_constants.py").write_text("")
    (tmp_path / "my_scaling.py").write_text(f"import my_scaling_helper\n{POWER_LAW}")
    settings = yaml.safe_load(run.config.read_text())
    settings["model"]["method"] = "parts/mine.yaml"
    own = {"class_path": "gau_alpha.AttentionMethod", "init_args": {"scaling": "my_scaling.PowerLaw"}}
    (tmp_path / "parts" / "mine.yaml").write_text(yaml.safe_dump(own))
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(settings))
    args = ["fit", "--config", "whole.yaml", "--trainer.logger", "false", "--trainer.default_root_dir", str(tmp_path)]
    assert main(args) == 0
    for name in ("my_scaling", "my_scaling_helper", "my_scaling_constants"):
        del sys.modules[name]


# What a hostile working directory brings


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fsmonitor", "filter", "hook", "line"])
def test_git_runs_no_program_of_the_working_directorys_repository(tmp_path, way):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    git("init", "--quiet")
    Path("a.txt").write_text("text")
    git("add", "a.txt")
    git("commit", "--quiet", "--message", "first")
    assert environment_info()["git"]["dirty"] is False
    marking = f"touch {tmp_path / MARKER}"
    if way == "fsmonitor":
        git("config", "core.fsmonitor", f"{marking}; false")
    elif way == "filter":
        git("config", "filter.x.clean", f"{marking}; cat")
        Path(".git/info/attributes").write_text("*.txt filter=x")
    elif way == "line":  # a setting that is two, if one takes them by lines
        git("config", "core.eol", f"lf\nfilter.x.clean {marking}; cat")
        (tmp_path / ".gitattributes").write_text("*.txt filter=x")
        git("add", ".gitattributes")
        git("commit", "--quiet", "--message", "second")
    else:
        hook = Path(".git/hooks/post-index-change")
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{marking}\n")
        hook.chmod(0o755)
    os.utime("a.txt", (1, 1))  # so that its content is compared
    assert environment_info()["git"]["dirty"] is False
    Path("a.txt").write_text("other")
    found = environment_info()["git"]
    assert found["dirty"] is True
    assert len(found["revision"]) >= 40
    assert not Path(MARKER).exists()


@pytest.mark.slow
def test_git_leaves_out_what_the_repository_leaves_out(tmp_path):
    subprocess.run(["git", "init", "--quiet"], check=True)
    commit = ["commit", "--quiet", "--allow-empty", "--message", "first"]
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *commit], check=True)
    Path("runs").mkdir()
    Path("runs/a").write_text("")
    assert environment_info()["git"]["dirty"] is True
    Path(".git/info/exclude").write_text("runs/\n")
    assert environment_info()["git"]["dirty"] is False


@pytest.mark.slow
def test_plots_are_drawn_by_our_own_settings(run, tmp_path):
    """``matplotlibrc`` of the working directory could ask for LaTeX, with a preamble of its own."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: module://evil_things\n")
    (tmp_path / "evil_things.py").write_text(HOSTILE)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("latex", "kpsewhich", "dvipng"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path / MARKER}\n")
        (programs / name).chmod(0o755)
    code = "import sys; sys.path.remove(''); from gau_alpha.cli import main; sys.exit(main(sys.argv[1:]))"
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "trained", "--length_ratios", "1"]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", code, *args, "--max_documents", "1", "--output_dir", "out"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path("out/extrapolation.html").is_file()
    assert not Path(MARKER).exists()


@pytest.mark.slow
@pytest.mark.parametrize("as_module", [True, False])
def test_processes_that_are_started_do_not_import_from_the_working_directory(tmp_path, as_module):
    """multiprocessing starts Python by ``-c``, torch by ``-m``: both would look in the working directory first."""
    (tmp_path / "multiprocessing.py").write_text(HOSTILE)
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import multiprocessing'], check=True)"
    (tmp_path / "my_scaling.py").write_text(f"{child}\n{POWER_LAW}")
    (tmp_path / "mine.yaml").write_text("scaling: my_scaling.PowerLaw\n")
    script = tmp_path / "bin" / "gau-alpha"
    script.parent.mkdir()
    script.write_text("from gau_alpha.cli import main\nmain()\n")
    start = ["-m", "gau_alpha.cli"] if as_module else [str(script)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, *start, "methods", "mine.yaml"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "PowerLaw" in done.stdout
    assert not Path(MARKER).exists()


def test_a_shipped_method_is_not_read_from_the_working_directory(run, evil, tmp_path, capsys):
    (tmp_path / "infoscale").write_text(f"class_path: gau_alpha.AttentionMethod\ninit_args:\n  scaling: {evil}\n")
    args = ["validate", "--ckpt_path", str(run.checkpoint), "--trainer.logger", "false"]
    capsys.readouterr()
    assert main([*args, "--model.method", "infoscale"]) == 0
    assert "InfoScale" in capsys.readouterr().out


# What a checkpoint, or a run's folder, brings besides


def test_a_path_that_could_be_a_list_is_a_path(run, tmp_path, capsys):
    """jsonargparse takes the text "[a, b]" for a list, which would not be said."""
    private = tmp_path / "private.txt"
    private.write_text("a secret " * 100)
    place = ("run", "config", "data", "init_args", "source", "init_args", "paths")
    path = changed(run, tmp_path / "theirs.ckpt", *place, value=f"[{private}]")
    refused(["extrapolate", "--ckpt_path", path], capsys, f"'[{private}]' names no file")


def test_standard_input_is_said_too(run, tmp_path, capsys, caplog, monkeypatch):
    source = {"class_path": "datamodules.StandardInput", "init_args": {}}
    path = changed(run, tmp_path / "theirs.ckpt", "run", "config", "data", "init_args", "source", value=source)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115  (the test's end closes it)
    with caplog.at_level("INFO"):
        refused(["extrapolate", "--ckpt_path", path], capsys, "Standard input has no text")
    assert any("says what to read: 'standard input'" in record.getMessage() for record in caplog.records)


def test_a_checkpoint_starts_no_more_workers_than_there_are_cores(run, tmp_path):
    place = ("run", "config", "data", "init_args", "num_workers")
    for value, kept in ((1024, os.cpu_count()), (1, 1)):
        path = changed(run, tmp_path / "theirs.ckpt", *place, value=value)
        assert data_of(read_checkpoint(path), path).arguments["num_workers"] == kept


def test_an_old_checkpoint_names_no_file_that_lightning_would_remove(run, tmp_path):
    """Lightning moves such entries to where ModelCheckpoint finds them, when it reads one of version 0.9."""
    precious = tmp_path / "precious.txt"
    precious.write_text("")
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    saves = tmp_path / "mine" / "run" / "x" / "checkpoints"
    named = saves / ".." / ".." / ".." / ".." / precious.name
    checkpoint |= {"pytorch-lightning_version": "0.9.0", "callbacks": {}, "schedule": {"total_steps": 4}}
    checkpoint |= {"checkpoint_callback_best_model_path": str(named), "checkpoint_callback_best_model_score": None}
    checkpoint["schedule"]["rate_ceiling"] = 1.0
    for name in ("batch_loop.optimizer_loop.optim_progress", "batch_loop.manual_loop.optim_step_progress"):
        progress = {"optimizer": {"step": {"total": {"completed": 3}}}, "total": {"completed": 3}}
        checkpoint["loops"]["fit_loop"][f"epoch_loop.{name}"] = progress
    torch.save(checkpoint, tmp_path / "theirs.ckpt")
    args = [
        "fit",
        "--config",
        str(run.config),
        "--ckpt_path",
        str(tmp_path / "theirs.ckpt"),
        "--trainer.max_steps",
        "4",
    ]
    logger = "--trainer.logger.init_args"
    assert main([*args, f"{logger}.save_dir", str(tmp_path / "mine"), f"{logger}.version", "x"]) == 0
    assert (saves / "last.ckpt").is_file()
    assert named.resolve() == precious
    assert precious.exists()


class Marking:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_folder_of_pieces_is_not_unpickled(run, tmp_path, capsys):
    folder = tmp_path / "theirs"
    folder.mkdir()
    with (folder / ".metadata").open("wb") as file:
        pickle.dump(Marking(str(tmp_path / MARKER)), file)
    torch.save({}, folder / "meta.pt")
    args = ["--ckpt_path", str(folder), "--trainer.logger", "false"]
    refused(["fit", "--config", str(run.config), *args], capsys, "sharded checkpoint")
    with pytest.raises(ValueError, match="sharded checkpoint"):
        ShardedStrategy().load_checkpoint(folder)
    assert not Path(MARKER).exists()


def test_nothing_is_written_through_a_link_in_a_runs_folder(run, tmp_path, capsys):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    mine.mkdir()
    (theirs / "checkpoints").mkdir(parents=True)
    shutil.copy(run.checkpoint, theirs / "checkpoints" / "last.ckpt")
    (theirs / "extrapolation.unfinished").symlink_to(mine)
    path = str(theirs / "checkpoints" / "last.ckpt")
    args = ["extrapolate", "--ckpt_path", path, "--methods", "trained", "--length_ratios", "1", "--max_documents", "1"]
    refused(args, capsys, "extrapolation.unfinished", "Remove it")
    assert not list(mine.iterdir())
    (theirs / "extrapolation.unfinished").unlink()
    (theirs / "extrapolation.unfinished.1").symlink_to(mine)
    (theirs / "extrapolation.unfinished.2").write_text("")
    assert main(args) == 0
    assert mine.exists()


def test_measurements_that_lie_in_a_runs_folder_are_said(run, tmp_path, caplog, monkeypatch):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "trained", "--length_ratios", "1"]
    args += ["--max_documents", "1", "--output_dir", "theirs"]
    with monkeypatch.context() as patched:
        patched.setattr(ResultCache, "close", lambda self: None)
        assert main(args) == 0
    with caplog.at_level("INFO"):
        assert main(args) == 0
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("1 measurements") and "theirs/extrapolation.unfinished" in line for line in said)


CONTROLS = "\x1b]0;x\x07\x9b31m\u202e"


def test_tokens_are_shown_and_not_obeyed(run, tmp_path, capsys):
    path = tmp_path / "theirs.json"
    content = json.loads(torch.load(run.checkpoint, weights_only=True)["run"]["tokenizer"]["tokenizer.json"])
    content["decoder"] = {"type": "Replace", "pattern": {"String": "a"}, "content": CONTROLS}
    path.write_text(json.dumps(content))
    model = ["fill-mask", "--model", str(run.checkpoint), "--tokenizer", str(path), "a[MASK]", "--top_k", "258"]
    for args in (["tokenizer", "inspect", str(path), "--text", "abc"], model, [*model, "--json"]):
        capsys.readouterr()
        assert main(args) == 0
        shown = capsys.readouterr().out
        assert "31m" in shown
        assert not set(CONTROLS[:1] + "\x07\x9b\u202e") & set(shown)
    assert CONTROLS in [one["token"] for one in json.loads(shown)["masks"][0]["predictions"]]
