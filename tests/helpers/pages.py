"""The front page and the guides, and what stands in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRONT = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [FRONT, ROOT / "CHANGELOG.md", *GUIDES, ROOT / "configs" / "README.md", *sorted(ROOT.glob("tests/*/README.md"))]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def section(page: Path, heading: str) -> str:
    """What stands below a heading of the second level."""
    return text(page).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def blocks(content: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", content, re.S)


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", text(page), flags=re.S)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command, without comments."""
    for block in blocks(text(page), "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
