"""Builds the guides and the API reference into one site with a search box: ``make docs``. A warning is an error.

The site works from ``file://``: nothing is fetched from elsewhere.
"""

import argparse
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pdoc import render
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from reference import PACKAGES, reference_pages

ROOT = Path(__file__).parent.parent
FRONT = ROOT / "README.md"
GUIDES = [
    "study", "architecture", "measuring", "studies", "data", "distributed", "recovery", "hugging_face", "extending",
    "opening_files", "what_is_checked", "published_code", "troubleshooting", "glossary",
]  # fmt: skip
"""Guides in the order of the front page."""

GUIDES_FIRST = """
window.pdocSearch = (search => term => {
    const results = search(term), guides = results.filter(one => one.doc.kind === "guide").slice(0, 3);
    return [...guides, ...results.filter(one => !guides.includes(one))];
})(window.pdocSearch);
"""
"""Puts the best sections of guides before names of the API, which are shorter and would always win."""


def build(folder: Path) -> None:
    """Write the site.

    Args:
        folder: Where to; files there are replaced.

    Raises:
        ValueError: If a page links to nothing.
        Warning: If pdoc warns of anything.
    """
    guides = [ROOT / "docs" / f"{name}.md" for name in GUIDES]
    others = [
        ROOT / "CHANGELOG.md",
        *(ROOT / name / "README.md" for name in ("configs", "tests/parity", "tests/benchmarks")),
    ]
    site = Site([FRONT, *guides, *others])
    pages = [Page(site, path) for path in site.paths]
    written = reference_pages([section for page in pages for section in page.sections()])
    template = render.env.get_template("guide.html.jinja2")
    menu = [(page.title, page.address) for page in pages if page.path in guides]
    for page in pages:
        written[page.address] = template.render(
            page=page,
            root="../" * page.address.count("/"),
            menu=menu,
            packages=PACKAGES,
            all_modules=dict.fromkeys(PACKAGES),
            module=SimpleNamespace(modulename=page.module),  # pdoc's search box takes the way to search.js from it
        )
    written["search.js"] += GUIDES_FIRST
    for path, content in written.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    for image in site.images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / image, folder / image)


class Site:
    """Knows where what lies in the tree stands in the site.

    Args:
        paths: The Markdown files that have pages.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.images: set[str] = set()

    def address(self, path: Path) -> str | None:
        """Return the page of a file or folder, relative to the site; None if it has none."""
        name = path.relative_to(ROOT).as_posix()
        if path in self.paths:
            return "index.html" if path == FRONT else f"{name.removesuffix('.md')}.html"
        if path.is_dir() and (path / "__init__.py").is_file():
            return f"{name}.html" if name.split("/")[0] in PACKAGES else None
        if path.suffix == ".py" and name.split("/")[0] in PACKAGES:
            return f"{name.removesuffix('/__init__.py').removesuffix('.py')}.html"
        return None


@dataclass(frozen=True)
class Part:
    """A heading and what stands below it, as HTML."""

    heading: str
    anchor: str
    html: str


class Page:
    """A Markdown file as a page.

    Args:
        site: Where links lead.
        path: The file.

    Raises:
        ValueError: If it links to nothing.
    """

    def __init__(self, site: Site, path: Path) -> None:
        self.path = path
        self._site = site
        address = site.address(path)
        assert address is not None, "it is one of the site's paths"
        self.address = address
        self.module = self.address.removesuffix(".html").replace("/", ".")
        markdown = MarkdownIt("commonmark", {"highlight": _highlighted}).enable("table")
        tokens = markdown.parse(path.read_text(encoding="utf-8"))
        self.parts: list[Part] = []
        starts = [place for place, token in enumerate(tokens) if token.type == "heading_open"]
        for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
            heading = "".join(child.content for child in tokens[start + 1].children or ())
            anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")  # as GitHub makes it
            tokens[start].attrSet("id", anchor)
            for token in tokens[start:end]:
                token.children = self._linked(token.children)
            html = markdown.renderer.render(tokens[start:end], markdown.options, {})
            self.parts.append(Part(heading, anchor, html))
        self.title = self.parts[0].heading

    def sections(self) -> list[dict[str, str]]:
        """Return the entries of the search index, a section each."""
        return [
            {
                "fullname": self.title if part is self.parts[0] else f"{self.title}: {part.heading}",
                "modulename": self.module,
                "qualname": part.anchor,
                "kind": "guide",
                # links are relative to the page, but results are shown on any
                "doc": re.sub(r"^<h\d.*?</h\d>|</?a\b[^>]*>|<img[^>]*>", "", part.html),
            }
            for part in self.parts
        ]

    def _linked(self, tokens: list[Token] | None) -> list[Token] | None:
        """Let links lead to pages; what the site does not have is named without a link."""
        if tokens is None:
            return None
        kept, dropped = [], False
        for token in tokens:
            if token.type == "image":
                self._resolve(str(token.attrGet("src")), is_image=True)
            if token.type == "link_open":
                link = self._resolve(str(token.attrGet("href")))
                dropped = link is None
                if link is not None:
                    token.attrSet("href", link)
            if token.type in ("link_open", "link_close") and dropped:
                continue
            kept.append(token)
        return kept

    def _resolve(self, link: str, is_image: bool = False) -> str | None:
        if "://" in link or link.startswith("#"):
            return link
        name, _, anchor = link.partition("#")
        target = (self.path.parent / name).resolve()
        if not target.exists():
            raise ValueError(f"{self.path.relative_to(ROOT)} links to {link!r}, which is not there.")
        if is_image:
            self._site.images.add(target.relative_to(ROOT).as_posix())
        address = self._site.address(target)
        up = "../" * self.address.count("/")
        return None if address is None else f"{up}{address}{'#' * bool(anchor)}{anchor}"


def _highlighted(code: str, language: str, attributes: Any) -> str:
    lexer = get_lexer_by_name(language or "text")
    colored = highlight(code, lexer, HtmlFormatter(nowrap=True))
    return f'<pre class="pdoc-code codehilite"><code>{colored}</code></pre>'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the guides and the API reference.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/site"))
    arguments = parser.parse_args()
    build(arguments.folder)
    print(f"guides and API reference: {arguments.folder / 'index.html'}")
