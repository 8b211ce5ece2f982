"""Who may import whom, and what may lie in the tree: held by reading the sources."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("gau_alpha", "datamodules", "callbacks", "configs")

AXES = {"similarity", "scaling", "position", "visibility", "normalizer"}
# room of gau_alpha → the rooms that it may import; cli may import everything, and __init__ re-exports
ROOMS = {
    "untrusted": set(),
    "vocabulary": set(),
    "config": {"untrusted"},
    **{axis: {"attention.strategy", "attention.layout", "position", "untrusted"} for axis in sorted(AXES)},
    "attention": AXES | {"untrusted"},
    "model": {"attention", "config", "untrusted"},
    "checkpoints": {"attention", "config", "untrusted"} | AXES,
    "training": {"model", "checkpoints", "attention", "config", "untrusted"} | AXES,
    "finetuning": {"training", "model", "checkpoints", "attention", "config", "untrusted"},
    "extrapolation": {"training", "model", "checkpoints", "attention", "scaling", "vocabulary", "untrusted"},
}
WITHOUT_LIGHTNING = AXES | {"untrusted", "config", "vocabulary", "attention", "model", "checkpoints"}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path, everywhere=True):
    """All modules that a file imports, anywhere in it or when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else at_import(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def at_import(body):
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from at_import([*node.body, *node.orelse])


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for package in OURS for path in sources(package)}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_import_one_way(room):
    found = 0
    for module, path in MODULES.items():
        if not f"{module}.".startswith(f"gau_alpha.{room}."):
            continue
        ours = {name for name in imported(path, everywhere=False) if name.startswith("gau_alpha.")}
        known = tuple(f"gau_alpha.{one}." for one in {room, *ROOMS[room]})
        assert not [name for name in ours if not f"{name}.".startswith(known)], path
        top = {name.split(".")[0] for name in imported(path)}
        assert not top & {"datamodules", "callbacks"}, path
        assert room not in WITHOUT_LIGHTNING or path.name == "io.py" or "lightning" not in top, path
        found += 1
    assert found


def test_no_module_imports_itself_in_a_circle():
    graph = {
        module: {*imported(path, everywhere=False)} & MODULES.keys() - {module} for module, path in MODULES.items()
    }
    graph["gau_alpha"] = set()  # what it re-exports is imported when asked for
    TopologicalSorter(graph).prepare()


def test_every_room_has_its_rule():
    assert {name.split(".")[1] for name in MODULES if name.startswith("gau_alpha.")} == {*ROOMS, "cli"}


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
            if path.is_relative_to(ROOT / "gau_alpha" / "cli") or path == ROOT / "gau_alpha" / "__init__.py":
                continue  # the package re-exports, when asked, what a notebook needs
            assert not [name for name in imported(path) if name.startswith("gau_alpha.cli")], path


@pytest.mark.slow
def test_the_axes_load_without_lightning():
    check = "import sys, gau_alpha.scaling, gau_alpha.attention.presets; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout: there is no list of tracked files")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.slow
def test_no_large_files():
    results = set(ROOT.glob("docs/study/*/results.parquet"))  # what pages are made of
    assert not [path for path in tracked() if path.stat().st_size > (2**21 if path in results else 250_000)]


@pytest.mark.slow
def test_no_personal_paths():
    home = ["/" + "home/", "/" + "root/", "/" + "Users/"]
    for path in tracked():
        if path.suffix in {".py", ".yaml", ".md", ".toml", ".lock", ".txt"}:
            text = path.read_text(encoding="utf-8")
            assert not [word for word in home if word in text], path
