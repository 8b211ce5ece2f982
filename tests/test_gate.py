"""What a file names is looked up in tables: held by reading the sources for every other way to get at an object."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gau_alpha", "datamodules", "callbacks")

IMPORTING = {"import_module", "__import__", "import_object", "import_class", "load_module", "spec_from_file_location"}
PARSING = {
    "ArgumentParser",
    "instantiate",
    "parse_object",
    "instantiate_classes",
    "auto_cli",
    "CLI",
    "instantiate_class",
}

# Where it is allowed, and why nothing that a file says gets there.
ALLOWED = {
    ("gau_alpha/__init__.py", "import_module"),  # our own names, out of a table
    ("gau_alpha/untrusted/trust.py", "import_module"),  # what the user has named, and nothing else
    ("datamodules/masking/segmenters.py", "import_module"),  # jieba
    ("gau_alpha/cli/tokenizer.py", "ArgumentParser"),  # what the user types
    ("gau_alpha/cli/tokenizer.py", "instantiate"),
    ("gau_alpha/cli/lightning.py", "instantiate_classes"),  # what the user types, over defaults that were looked up
    ("gau_alpha/cli/__main__.py", "sys.path"),  # takes the working directory out
}
ARGPARSE = {
    "gau_alpha/cli/convert.py",
    "gau_alpha/cli/fill_mask.py",
    "gau_alpha/cli/methods.py",
    "gau_alpha/cli/study/__init__.py",
}
"""Files that use the standard library's parser, which builds nothing."""


def sources():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def uses(path):
    """Yield every name in a file that imports, builds by description, or changes the import path."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if name in IMPORTING | PARSING:
            yield name
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            whole = f"{node.value.id}.{node.attr}"
            if whole in ("sys.path", "pickle.load", "pickle.loads", "marshal.loads", "yaml.load", "yaml.unsafe_load"):
                yield whole
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield node.func.id


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_other_way_leads_from_a_name_to_an_object(path):
    name = path.relative_to(ROOT).as_posix()
    found = {one for one in uses(path) if not (one == "ArgumentParser" and name in ARGPARSE)}
    assert not {(name, one) for one in found} - ALLOWED


def test_what_is_allowed_is_used():
    found = {(path.relative_to(ROOT).as_posix(), use) for path in sources() for use in uses(path)}
    assert found >= ALLOWED


def test_torch_load_reads_plain_data_only():
    calls = [
        (path, node)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls
    for path, node in calls:
        flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert flags.get("weights_only") == "True", path
