"""The site of guides and API reference: every public name has a docstring and is in it; a warning stops it."""

import ast
import json
import re
import sys
import types
from urllib.parse import unquote

import pytest
import reference
import website
from pages import GUIDES, ROOT

PACKAGES = ("gau_alpha", "datamodules", "callbacks")


def public_names() -> dict[str, list[str]]:
    """Module → what is public in it, read from the sources: classes with their methods, functions and constants."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if module.rpartition(".")[2].startswith("_"):
            continue
        names = found[module] = []
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                members = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
                names += [node.name, *(f"{node.name}.{name}" for name in members if not name.startswith("_"))]
            elif isinstance(node, ast.FunctionDef):
                names.append(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name):
                    names.append(target.id)
        found[module] = [name for name in names if not name.startswith("_")]
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    website.build(folder)
    assert (folder / "docs" / "study" / "perplexity.png").is_file()
    texts = [path for path in folder.rglob("*.*") if path.suffix in (".html", ".js")]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in texts}


def shown(page: str) -> set[str]:
    return set(re.findall(r'<(?:section|div) id="([^"]+)"', page))


@pytest.mark.slow
def test_every_public_name_is_in_the_reference_once(pages):
    names = public_names()
    assert len(names) > 100
    assert sum(map(len, names.values())) > 700
    missing, repeated = [], []
    for module, members in names.items():
        parts = module.split(".")
        above = [".".join(parts[:end]) for end in range(2, len(parts) + 1)] or [module]
        on = [shown(pages[f"{page.replace('.', '/')}.html"]) for page in dict.fromkeys([*above, module])]
        missing += [f"{module}.{member}" for member in members if not any(member in page for page in on)]
        repeated += [f"{module}.{member}" for member in members if sum(member in page for page in on) > 1]
    assert not missing
    assert not repeated
    assert all(f"{module.replace('.', '/')}.html" in pages["reference.html"] for module in names)


@pytest.mark.slow
def test_links_lead_somewhere_and_nothing_is_fetched(pages):
    anchors = {(name, anchor) for name, page in pages.items() for anchor in re.findall(r'id="([^"]+)"', page)}
    broken = []
    for name, page in pages.items():
        if not name.endswith(".html"):
            continue
        body = re.sub(r"<script.*?</script>|<div class=\"pdoc-code.*?</div>", "", page, flags=re.S)
        assert not re.findall(r'(?:src|rel="stylesheet" href)="https?:', body), "works offline"
        for link in re.findall(r'<a[^>]* href="([^"]+)"', body):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            anchor = unquote(anchor)
            target = (ROOT / name).parent.joinpath(path).resolve().relative_to(ROOT).as_posix() if path else name
            if target not in pages or (anchor and (target, anchor) not in anchors):
                broken.append(f"{name}: {link}")
    assert not broken


@pytest.mark.slow
def test_an_override_shows_the_shapes_of_what_it_overrides(pages):
    page = pages["gau_alpha/scaling.html"]
    method = page.partition('<div id="InfoScale.temperature"')[2].partition("</section>")[0]
    assert "√(1 − n^(−2/d))" in method
    assert "τ(n), float32, of the same shape" in method, "what Scaling.temperature says of all"
    assert method.count("Arguments:") == 1
    assert "Initialize internal Module state" not in page


@pytest.mark.slow
def test_a_warning_stops_the_build(tmp_path, monkeypatch):
    broken = types.ModuleType("broken")
    broken.__path__ = []
    broken.__all__ = ["missing"]
    monkeypatch.setitem(sys.modules, "broken", broken)
    monkeypatch.setattr(reference, "module_names", lambda: ["broken"])
    with pytest.raises(UserWarning, match="missing"):
        website.build(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_link_to_nothing_stops_the_build(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text("# Title\n\n[nowhere](docs/nowhere.md)\n")
    monkeypatch.setattr(website, "ROOT", tmp_path)
    monkeypatch.setattr(website, "FRONT", page)
    with pytest.raises(ValueError, match=r"README\.md links to 'docs/nowhere\.md'"):
        website.Page(website.Site([page]), page)


@pytest.mark.slow
def test_guides_are_pages_and_the_search_box_finds_their_sections(pages):
    guides = {f"docs/{page.stem}.html" for page in GUIDES}
    assert guides <= pages.keys()
    assert all(f'href="{guide}"' in pages["index.html"] for guide in guides), "in the menu of the front page"
    assert "docs/study/perplexity.png" in pages["index.html"]
    index = json.loads(re.search(r"docs = (.*);$", pages["search.js"], re.M)[1])
    entries = index if isinstance(index, list) else index["documentStore"]["docs"].values()
    found = {(entry["modulename"], entry.get("qualname")) for entry in entries}
    assert {("index", "map"), ("docs.measuring", "protocols"), ("gau_alpha.scaling", "InfoScale")} <= found
    for name in guides:
        assert 'type="search"' in pages[name]
        assert '"../search.js"' in pages[name] or "`../search.js`" in pages[name]


@pytest.mark.parametrize("module", public_names())
def test_every_public_constant_says_what_it_is(module):
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    silent = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        told |= ast.unparse(node.value).startswith("TypeVar(") if node.value is not None else False
        if isinstance(target, ast.Name) and not target.id.startswith("_") and not told:
            silent.append(target.id)
    assert not silent
