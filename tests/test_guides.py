"""What the pages say exists: commands, options, files, presets, classes, columns; their Python runs."""

import ast
import importlib
import re
from contextlib import redirect_stdout, suppress
from dataclasses import fields
from io import StringIO

import pytest
import torch
import yaml
from matplotlib.image import imread
from pages import PAGES, ROOT, anchors, blocks, commands, prose, section, text

import datamodules
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.attention.presets import TRAINED, preset_names
from gau_alpha.cli import main
from gau_alpha.cli.commands import COMMANDS
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.calibration import is_calibrated
from gau_alpha.extrapolation.options import SPAN_POSITIONS
from gau_alpha.extrapolation.report.tables import DETAILS
from gau_alpha.similarity import CosScale
from gau_alpha.training.metrics import MaskedLMMetrics

MEASURING = ROOT / "docs" / "measuring.md"
TOLD = [(page, words) for page in PAGES for words in commands(page)]


def by_name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_command_is_one():
    ours = [words for _, words in TOLD if words[0] in ("gau-alpha", "make")]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {words[1] for words in ours if words[0] == "make"} >= {"setup", "demo", "test", "check", "docs"}
    assert {words[1] for words in ours if words[0] == "gau-alpha"} >= {*COMMANDS} - {"test"}
    for words in ours:
        assert words[1] in (targets if words[0] == "make" else COMMANDS), words


def arguments():
    """What is given to a command of ours, in any of the ways to start it."""
    for page, words in TOLD:
        start = words.index("gau_alpha.cli") if "gau_alpha.cli" in words else 0 if words[0] == "gau-alpha" else None
        if start is not None:
            yield page, words[start + 1 :]


@pytest.fixture(scope="module")
def help_of():
    """The help of a command, or of one below it; each asked for once."""
    known: dict[tuple[str, ...], str] = {}

    def ask(*names):
        if names not in known:
            with redirect_stdout(StringIO()) as out, suppress(SystemExit):
                main([*names, "--help_all" if names and names[0] in LIGHTNINGS else "--help"])
            known[names] = out.getvalue()
        return known[names]

    return ask


LIGHTNINGS = ("fit", "validate", "test", "predict", "extrapolate", "calibrate")
"""Commands whose help fits on a screen because Lightning's options are behind ``--help_all``."""

COMMANDS_TOLD = sorted({words[0] for _, words in arguments()})


def is_option(word, told):
    """Whether a help tells of an option; ``--trainer.logger.version`` is one of ``--trainer.logger``."""
    parts = word.partition("=")[0].split(".")
    names = [".".join(parts), ".".join(parts[:2]), *(part for part in parts[:1] if part in ("--data", "--source"))]
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w.-])", told) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS_TOLD)
def test_every_option_is_one(help_of, command):
    seen = 0
    for page, words in arguments():
        if words[0] == command:
            told = help_of(*words[:2]) if command == "tokenizer" else help_of(command)
            options = [word for word in words if word.startswith("--")]
            unknown = [word for word in options if not is_option(word, told)]
            assert not unknown, f"{page.name}: {' '.join(words)}"
            seen += len(options)
    assert seen or command == "methods"


@pytest.mark.slow
def test_every_option_in_prose_is_one(help_of):
    of_others = {"--help", "--max-restarts", "--nproc_per_node", "--logdir"}
    asked = [
        names
        for name in COMMANDS_TOLD
        for names in ([[name, "train"], [name, "inspect"]] if name == "tokenizer" else [[name]])
    ]
    told = " ".join(help_of(*names) for names in ([], *asked))
    found = {(page.name, word) for page in PAGES for word in re.findall(r"`(--[\w.-]+)", prose(page))}
    assert len(found) > 20
    assert not [(page, word) for page, word in found if word not in of_others and not is_option(word, told)]


def test_every_method_named_is_a_preset():
    found = 0
    for _, words in TOLD:
        if "--methods" in words:
            names = words[words.index("--methods") + 1 :]
            names = names[: next((i for i, word in enumerate(names) if word.startswith("--")), len(names))]
            assert names
            known = (*preset_names(), TRAINED)
            assert not [n for n in names if n not in known and not is_calibrated(n) and not n.endswith(".yaml")]
            found += 1
    assert found


def test_every_config_named_is_shipped():
    own = {"mine.yaml", "data.yaml"}  # which their pages show
    for _, words in TOLD:
        for option, folder in (("--config", "experiment"), ("--trainer", "trainer"), ("--data", "data")):
            if option in words and (name := words[words.index(option) + 1]) not in own:
                assert any((ROOT / "configs" / place / name).is_file() for place in (".", folder)), words
    for page in PAGES:
        for name in re.findall(r"`(\w+\.(?:yaml|sbatch))`", prose(page)):
            assert name in {"config.yaml", "NAME.yaml", *own} or list((ROOT / "configs").rglob(name)), (
                f"{page.name}: {name}"
            )


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=by_name)
def test_every_class_path_can_be_imported(page):
    """In prose, YAML and commands; the changelog tells of old ones, too."""
    for path in set(re.findall(r"\b((?:gau_alpha|datamodules|callbacks)(?:\.\w+)+)\b", text(page))):
        if path.endswith((".py", ".md", ".cli")):
            continue
        module, _, name = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), path


def test_every_path_in_prose_exists():
    """``tests/datamodules`` and the like, in code font."""
    for page in PAGES:
        for path in re.findall(r"`((?:gau_alpha|datamodules|callbacks|configs|tests|docs)/[\w/.]*)`", prose(page)):
            if page.name != "CHANGELOG.md":
                assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_yaml_parses():
    found = [block for page in PAGES for block in blocks(text(page), "yaml")]
    assert len(found) >= 3
    assert all(isinstance(yaml.safe_load(block), dict) for block in found)


def test_what_the_parts_of_a_data_module_may_be():
    table = section(ROOT / "docs" / "data.md", "Your own text").partition("| part |")[2]
    named = re.findall(r"`([A-Z]\w+)`", table.partition("\n\n")[0])
    assert len(named) >= 15
    assert not [name for name in named if not hasattr(datamodules, name)]


def test_every_column_and_status_is_explained():
    columns = section(MEASURING, "What each column means")
    told = re.findall(r"^\| `([^`]+)` \|", columns, re.M)
    assert told == DETAILS
    assert all(f"`{status}`" in columns for status in Status)
    known = {field.name for field in fields(ExtrapolationResult)}
    assert {"attention_entropy", "near_share"} <= known
    assert all(f"`{way}`" in section(MEASURING, "Protocols") for way in SPAN_POSITIONS)


def test_every_logged_metric_is_explained():
    told = section(MEASURING, "What is logged while training")
    assert all(f"`{name}`" in told for prefix in ("train/", "validation/") for name in MaskedLMMetrics(prefix))
    assert "`extrapolation/<method>/x<ratio>/<metric>`" in told
    sources = (ROOT / "callbacks" / "extrapolation.py").read_text()
    (metrics,) = re.findall(r"^_METRICS = (\(.*?\))", sources, re.M | re.S)
    assert all(f"`{name}`" in told for name in ast.literal_eval(metrics))


def test_messages_in_troubleshooting_are_ours():
    """What stands in double quotes there is said somewhere in the sources."""
    said = []
    for package in ("gau_alpha", "datamodules", "callbacks"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    said.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    said.append("".join(str(getattr(part, "value", "…")) for part in node.values))
    told = re.findall(r'"([^"]+)"', prose(ROOT / "docs" / "troubleshooting.md"))
    assert len(told) >= 8
    assert not [message for message in told if not any(message in one for one in said)]


def test_the_formulas_python_runs():
    (block,) = blocks(section(ROOT / "docs" / "architecture.md", "Five axes"), "python")
    names: dict = {}
    exec(compile(block, "architecture.md", "exec"), names)
    assert names["logits"].shape == (1, 128, 12_000)


def quick_tour() -> list[str]:
    (block,) = blocks(section(MEASURING, "In Python"), "python")
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
    exec(compile("\n".join(lines), "measuring.md", "exec"), names)
    measured = {(row.method, row.length) for row in names["report"].rows if row.status == "ok"}
    assert measured == {(name, length) for name in ("cosscale", "with InfoScale") for length in (64, 512, 4096)}
    one, two = (names["report"].tables[0].row(name, 4096) for name in ("cosscale", "with InfoScale"))
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
