"""Files from strangers are data: nothing in a file says what runs, what is read unsaid, or where is written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gau_alpha import GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.cli import main

MARKER = "the_strangers_marker"
MODULE = f"""
from pathlib import Path

Path({MARKER!r}).write_text("was run")


class Evil:
    def __init__(self, *args, **kwargs):
        Path({MARKER!r}).write_text("was built")
"""

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
    (tmp_path / "evil_things.py").write_text(MODULE)
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
    capsys.readouterr()
    try:
        code = main(args)
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.count("gau-alpha: error: ") == 1
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
        (tmp_path / f"{name}.py").write_text(MODULE)
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
