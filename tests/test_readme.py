"""What the README says exists: its commands, files and presets."""

import re
import shlex
from pathlib import Path

from gau_alpha.cli import COMMANDS
from gau_alpha.presets import TRAINED, preset_names

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
