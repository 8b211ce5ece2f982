"""Makes the API reference from the docstrings, with pdoc; ``website.py`` puts it beside the guides. A warning stops it.

Every module has a page. A name stands in full on one of them, that of the package it is to be imported from, such as
``gau_alpha.scaling``; its own file's page and the top of the package link there.
"""

import inspect
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from unittest.mock import patch

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import escape
from pdoc import doc, render, render_helpers
from pdoc.search import make_index

PACKAGES = ("gau_alpha", "datamodules", "callbacks")
_ORDER = ("Args", "Yields", "Returns", "Raises")
_SECTION = re.compile(rf"^({'|'.join(_ORDER)}):\n", re.M)
TEMPLATES = Path(__file__).parent / "templates"


def module_names() -> list[str]:
    """Name all public modules, packages before what is in them."""
    names = []
    for package in PACKAGES:
        names.append(package)
        found = walk_packages(import_module(package).__path__, f"{package}.")
        names += sorted(module.name for module in found if not module.name.rpartition(".")[2].startswith("_"))
    return names


def reference_pages(sections: list[dict[str, str]]) -> dict[str, str]:
    """Render the pages.

    Args:
        sections: Further entries of the search index, found by the search box of every page; see ``pdoc.search``.

    Returns:
        Pages by path, and ``search.js``.

    Raises:
        Warning: If pdoc warns of anything, such as a name that can't be resolved.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"pdoc\b")
        names = module_names()
        for package in PACKAGES:
            for name in getattr(import_module(package), "__all__", ()):
                getattr(import_module(package), name)  # some are only imported when asked for
        modules = {name: doc.Module(import_module(name)) for name in names}
        for module in modules.values():
            _complete(module)
        render.configure(docformat="google", template_directory=TEMPLATES, footer_text="GAU-α Lightning")
        homes = Homes(modules)
        render.env.globals.update(homes=homes, summary=_summary, children=lambda name: _children(name, names))
        render.env.tests["public"] = homes.is_public
        render.env.filters["link"] = homes.link
        pages = {
            f"{name.replace('.', '/')}.html": render.html_module(module, modules) for name, module in modules.items()
        }
        with patch.object(render, "make_index", lambda *args: [*sections, *make_index(*args)]):
            return pages | {"reference.html": render.html_index(modules), "search.js": render.search_index(modules)}


class Homes:
    """Says on which page a name stands in full.

    Args:
        modules: All pages, packages before what is in them.
    """

    def __init__(self, modules: dict[str, doc.Module]) -> None:
        self.modules = modules
        self._owners: dict[tuple[str, str], str] = {}
        for page, module in modules.items():
            for member in _members(module):
                if "." in page:
                    self._owners.setdefault(member.taken_from, page)

    def of(self, page: str, member: doc.Doc) -> str:
        """Return the page on which a class, a function or a constant of a page stands in full."""
        if member.kind != "variable":
            return self._owners.get(member.taken_from, page)
        # A constant does not know where it comes from; it stands where it is explained.
        below = (other for other in self.modules if other.startswith(f"{page}."))
        return next((other for other in below if _explains(self.modules[other], member.name)), page)

    def is_public(self, member: doc.Doc) -> bool:
        """Say whether a member is shown in full on the page where it was found."""
        if member.kind == "module":
            return True
        page = self.modules[member.modulename]
        top = page.members[member.qualname.partition(".")[0]]
        if top.name.startswith("_"):
            return False
        if self.of(member.modulename, top) != member.modulename:
            return False
        if top is not member and member.taken_from != (top.taken_from[0], member.qualname):  # inherited
            original = self._find(member.taken_from)
            return original is not None and (original is member or self.is_public(original))
        if member.name == "__init__":
            return bool(member.signature_without_self.parameters)
        if member.name.startswith("_"):
            return False
        if top is not member and member.kind == "variable" and not member.docstring:
            # The docstring of the class tells of it; only a value that the class itself sets is worth a line.
            fields = getattr(top.obj, "__dataclass_fields__", getattr(top.obj, "_fields", ()))
            return bool(member.default_value_str) and member.name not in fields
        return True

    @pass_context
    def link(self, context: Context, spec: tuple[str, str], text: str | None = None) -> str:
        """Link to the page on which a definition stands in full; pdoc's own filter links to the file it is in."""
        module, name = spec
        text = text or name
        top = self._find((module, name.partition(".")[0])) if name else None
        if top is not None and top.name.startswith("_"):
            return escape(text)  # a base class that is nobody's business
        home = module if top is None else self.of(module, top)
        return render_helpers.link(context, (home, name), text.replace(f"{module}.", f"{home}."))

    def _find(self, spec: tuple[str, str]) -> doc.Doc | None:
        page = self.modules.get(spec[0])
        return None if page is None else page.get(spec[1])

    def elsewhere(self, module: doc.Module) -> Iterator[doc.Doc]:
        """Yield a page's members that stand in full on another."""
        for member in _members(module):
            home = self.of(module.modulename, member)
            if home != module.modulename:
                yield self.modules[home].members[member.name]


def _complete(module: doc.Module) -> None:
    """Give overrides the sections (Args, Returns) that they leave to what they override.

    And take torch's words from below our constructors, which the docstring of the class explains.
    """
    for one in module.own_members:
        if not isinstance(one, doc.Class):
            continue
        for name, member in one.members.items():
            if name == "__init__":
                member.docstring = ""
            elif isinstance(member, doc.Function) and name in vars(one.obj):
                for base in one.obj.__mro__[1:]:
                    if base.__module__.partition(".")[0] in PACKAGES and name in vars(base):
                        member.docstring = _with_sections(member.docstring, inspect.getdoc(vars(base)[name]) or "")


def _with_sections(docstring: str, base: str) -> str:
    words, *own = _SECTION.split(docstring)
    _, *more = _SECTION.split(base)
    # name, content, name, content …; a section of its own wins
    sections = dict(zip(more[::2], more[1::2], strict=True)) | dict(zip(own[::2], own[1::2], strict=True))
    ordered = sorted(sections.items(), key=lambda section: _ORDER.index(section[0]))
    return "\n\n".join([words.rstrip(), *(f"{name}:\n{text.rstrip()}" for name, text in ordered)])


def _summary(docstring: str) -> str:
    """Return the first paragraph, on one line and without markup."""
    return " ".join(docstring.partition("\n\n")[0].split()).replace("``", "")


def _members(module: doc.Module) -> list[doc.Doc]:
    return [one for one in module.own_members if not one.name.startswith("_") and one.kind != "module"]


def _explains(module: doc.Module, name: str) -> bool:
    return any(one.name == name and bool(one.docstring) for one in _members(module))


def _children(name: str, names: list[str]) -> list[str]:
    return [other for other in names if other.rpartition(".")[0] == name]
