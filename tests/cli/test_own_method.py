"""The README's example of a strategy of one's own, as a user would paste it."""

import json
import re
import shlex
from pathlib import Path

import pytest

from gau_alpha.cli import main

README = Path(__file__).parents[2] / "README.md"


def blocks(heading):
    """Code blocks of a section of the README."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.S)


@pytest.fixture
def pasted(tmp_path, monkeypatch):
    """The example's files in a folder of their own, which is where the user works."""
    monkeypatch.chdir(tmp_path)
    files = [text for language, text in blocks("Add a method of your own") if language in ("python", "yaml")]
    for text in files:
        name = text.split("\n", 1)[0].removeprefix("# ").split(":")[0].strip()
        (tmp_path / name).write_text(text)
    (commands,) = (text for language, text in blocks("Add a method of your own") if language == "bash")
    assert sum(len(text.strip().splitlines()) for text in files) <= 25
    return [shlex.split(line) for line in commands.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_readmes_example_runs(run, pasted, tmp_path, capsys):
    replaced = {"demo.yaml": str(run.config), "runs/demo/softmax/checkpoints/last.ckpt": str(run.checkpoint)}
    ran = []
    for command in pasted:
        assert command[0] == "gau-alpha"
        args = [replaced.get(word, word) for word in command[1:]]
        if args[0] == "extrapolate":
            args += ["--length_ratios", "1", "4", "--max_documents", "2", "--output_dir", str(tmp_path)]
        if args[0] == "fit":
            args += ["--trainer.logger", "false", "--trainer.callbacks", "[]"]
            args += ["--trainer.default_root_dir", str(tmp_path / "fitted")]
        assert main(args) == 0
        ran.append(args[0])
    assert ran == ["methods", "fit", "extrapolate"]
    assert re.search(r"^mine +training-free .*PowerLaw\(", capsys.readouterr().out, re.M)
    rows = json.loads((tmp_path / "extrapolation.json").read_text())["rows"]
    losses = {(row["method"], row["length_ratio"]): row["loss"] for row in rows}
    assert losses["mine", 1] == losses["softmax", 1]
    assert losses["mine", 4] != losses["softmax", 4]
