"""What the README says exists: its commands, files and presets."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from matplotlib.image import imread

import datamodules
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.attention.presets import TRAINED, preset_names
from gau_alpha.cli.commands import COMMANDS
from gau_alpha.similarity import CosScale

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    for block in re.findall(r"```bash\n(.*?)```", README, re.S):
        yield from (
            shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()
        )


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_command_is_one():
    told = [words for words in commands() if words and words[0] in ("gau-alpha", "make")]
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert {words[1] for words in told if words[0] == "make"} >= {"demo", "test"}
    for words in told:
        assert words[1] in (targets if words[0] == "make" else COMMANDS), words


def test_every_method_named_is_a_preset():
    for words in commands():
        if "--methods" in words:
            names = words[words.index("--methods") + 1 :]
            names = names[: next((i for i, word in enumerate(names) if word.startswith("--")), len(names))]
            assert names
            assert not [n for n in names if n not in (*preset_names(), TRAINED) and not n.endswith(".yaml")]


def test_every_config_named_is_shipped():
    for words in commands():
        for option, folder in (("--config", "experiment"), ("--trainer", "trainer"), ("--data", "data")):
            if option in words:
                name = words[words.index(option) + 1]
                assert any((ROOT / "configs" / place / name).is_file() for place in (".", folder)), words


def quick_tour() -> list[str]:
    """The Python under that heading: lines as they are printed."""
    section = README.partition("## Quick tour")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.S)
    return block.splitlines()


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """What the tour finds: a checkpoint where `make demo` leaves it, and a corpus. Both small."""
    model = GAUAlphaConfig(datamodules.ByteTokenizer().vocabulary.size, 16, 24, 8, 2)
    module = GAUAlphaModule(model, 64, AttentionMethod(similarity=CosScale()))
    path = tmp_path / "runs/demo/cosscale/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    for number in range(12):
        (tmp_path / f"{number}.py").write_text(f"def function_{number}(argument):\n    return argument\n" * 90)
    monkeypatch.setattr(datamodules, "PythonStandardLibrary", lambda: datamodules.TextFiles([f"{tmp_path}/*.py"]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_the_quick_tour_does_what_it_says_in_ten_lines(demo, capsys):
    lines = quick_tour()
    assert len([line for line in lines if line.strip()]) <= 10
    assert all(len(line) <= 120 for line in lines)
    names: dict = {}
    exec(compile("\n".join(lines), "README.md", "exec"), names)
    measured = {(row.method, row.length) for row in names["report"].rows if row.status == "ok"}
    assert measured == {(name, length) for name in ("cosscale", "with InfoScale") for length in (64, 512, 4096)}
    one, two = (names["report"].row(name, 4096) for name in ("cosscale", "with InfoScale"))
    assert one.loss != two.loss, "another method"
    assert one.num_targets == two.num_targets > 0
    printed = capsys.readouterr().out
    assert "with InfoScale" in printed
    assert "4,096" in printed
    assert imread("cosscale.png").shape[1] > 500
    # the documents are those that the demo held out: what its file leaves to defaults, so does the tour
    said = yaml.safe_load((ROOT / "configs/data/python_standard_library.yaml").read_text())["init_args"]
    assert set(said) == {"source", "tokenizer", "train_length", "batch_size"}
    assert said["train_length"] == names["data"].train_length
    assert said["tokenizer"].endswith(type(names["data"].tokenizer).__name__)
