"""Who may import whom, and what may lie in the tree: held by reading the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("gau_alpha", "datamodules", "callbacks", "configs")

AXES = {"strategy", "rows", "similarity", "scaling", "position", "visibility"}
MODEL = AXES | {"method", "kernels", "config", "layers", "pieces", "pointwise", "dropout"}
EVERYWHERE = {"limits", "untrusted"}
# part of gau_alpha → the parts of gau_alpha that it may import
ALLOWED = {
    "untrusted": set(),
    "limits": {"untrusted"},
    "vocabulary": set(),
    "allocation": set(),
    "files": set(),
    "errors": set(),
    "config": set(),
    "metrics": set(),
    "optimization": set(),
    "strategy": set(),
    "rows": set(),
    "pieces": set(),
    "pointwise": {"pieces"},
    "dropout": set(),
    "precision": set(),
    "similarity": {"strategy"},
    "scaling": {"strategy"},
    "position": {"strategy", "rows"},
    "visibility": {"strategy", "rows", "position"},
    "method": AXES,
    "kernels": AXES | {"method", "dropout"},
    "layers": MODEL - {"layers"},
    "presets": AXES | {"method"},
    "hyperparameters": {"method", "presets", "strategy"},
    "model": MODEL | {"checkpoints"},
    "checkpoints": {"config", "method", "presets", "scaling", "similarity", "files", "heads", "model"},
    "heads": MODEL | {"model", "metrics", "checkpoints"},
    "fine_tuning": {"checkpoints", "config", "heads", "method", "metrics", "module", "optimization", "training"},
    "reproduction": {"checkpoints", "files", "fine_tuning", "module", "training"},
    "sharding": {"checkpoints", "model"},
    "training": {"checkpoints", "config", "method", "metrics", "model", "optimization", "presets"},
    "module": {
        "allocation",
        "checkpoints",
        "config",
        "heads",
        "hyperparameters",
        "method",
        "metrics",
        "model",
        "optimization",
        "sharding",
        "training",
    },
    "extrapolation": {"allocation", "extrapolation", "model", "method", "kernels", "metrics", "vocabulary", "files"},
    "calibration": {"files", "presets", "scaling"},
    "temperature_search": set(),
    "calibrate": MODEL | {"calibration", "extrapolation", "model", "temperature_search", "vocabulary"},
    "checkpoint_io": {"checkpoints", "files"},
    "resumption": {"checkpoints"},
    "interruption": set(),
    "waiting": set(),
    "continued_logs": {"interruption"},
    "due_validation": {"interruption"},
    "dropout_seed": set(),
    "surroundings": set(),
    "report": {"extrapolation", "files"},
    "entrants": {"calibration", "checkpoints", "extrapolation", "method", "model", "module", "presets"},
    "study": {"entrants", "extrapolation", "report", "sharding"},
    "calibration_run": {"calibrate", "calibration", "entrants", "method", "report", "study"},
    "trainer": {
        "calibration",
        "calibration_run",
        "entrants",
        "extrapolation",
        "interruption",
        "module",
        "precision",
        "presets",
        "report",
        "study",
        "surroundings",
    },
}
PLAIN_TORCH = MODEL | {"model", "metrics", "optimization", "extrapolation", "vocabulary"}
WITHOUT_LIGHTNING = PLAIN_TORCH | {"heads", "presets", "checkpoints", "report", "files"}
WITHOUT_LIGHTNING |= {"calibrate", "calibration", "temperature_search"}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path):
    """All modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def part(path):
    return path.relative_to(ROOT / "gau_alpha").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources("gau_alpha"), ids=lambda path: str(path.relative_to(ROOT)))
def test_directions_inside_gau_alpha(path):
    own = part(path)
    if own in ("cli", "__init__"):  # cli may import everything; __init__ re-exports
        return
    assert own in ALLOWED, f"say in this test what {own} may import"
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("gau_alpha.")}
    ours -= set() if own in EVERYWHERE else EVERYWHERE
    assert ours <= ALLOWED[own] | ({own} if (ROOT / "gau_alpha" / own).is_dir() else set())
    top = {name.split(".")[0] for name in imported(path)}
    assert not top & {"datamodules", "callbacks"}
    if own in WITHOUT_LIGHTNING:
        assert "lightning" not in top
    if own in MODEL | {"model"}:
        assert top <= {"torch", "gau_alpha", *sys.stdlib_module_names}


def test_datamodules_know_only_the_vocabulary():
    for path in sources("datamodules"):
        ours = {name for name in imported(path) if name.split(".")[0] in OURS}
        assert {name for name in ours if not name.startswith("datamodules")} <= {"gau_alpha.vocabulary"}, path


def test_callbacks_know_no_data_and_no_cli():
    for path in sources("callbacks"):
        assert not [name for name in imported(path) if name.startswith(("datamodules", "gau_alpha.cli"))], path


def test_nothing_imports_the_command_line():
    for package in OURS:
        for path in sources(package):
            if path.is_relative_to(ROOT / "gau_alpha" / "cli"):
                continue
            assert not [name for name in imported(path) if name.startswith("gau_alpha.cli")], path


def test_the_list_above_is_alive():
    assert set(ALLOWED) <= {part(path) for path in sources("gau_alpha")}


def test_the_axes_load_without_lightning():
    check = "import sys, gau_alpha.scaling, gau_alpha.presets; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout: there is no list of tracked files")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_large_files():
    assert not [path for path in tracked() if path.stat().st_size > 250_000]


def test_no_personal_paths():
    home = ["/" + "home/", "/" + "root/", "/" + "Users/"]
    for path in tracked():
        if path.suffix in {".py", ".yaml", ".md", ".toml", ".lock", ".txt"}:
            text = path.read_text(encoding="utf-8")
            assert not [word for word in home if word in text], path
