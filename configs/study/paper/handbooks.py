"""Makes JSON lines, one document per page, of handbooks that Debian ships in English and in Chinese: a corpus each.

    apt install debian-handbook debian-reference-en debian-reference-zh-cn
    apt install installation-guide-amd64 maint-guide maint-guide-zh-cn
    python handbooks.py handbooks          # writes handbooks/english.jsonl and handbooks/chinese.jsonl

The same books in both languages, sentences only: no menus, tables of contents, or program text. Their licences (GPL,
GFDL, Creative Commons) differ, so the text is not shipped.
"""

import argparse
import json
from html.parser import HTMLParser
from pathlib import Path

PAGES = {
    "english": [
        "doc/debian-handbook/html/en-US/*.html",
        "debian-reference/*.en.html",
        "doc/installation-guide-amd64/en/*.html",
        "doc/maint-guide/html/*.en.html",
    ],
    "chinese": [
        "doc/debian-handbook/html/zh-CN/*.html",
        "debian-reference/*.zh-cn.html",
        "doc/installation-guide-amd64/zh_CN/*.html",
        "doc/maint-guide-zh-cn/html/*.zh-cn.html",
    ],
}
"""Where the books' pages lie, below ``/usr/share``."""

_HIDDEN = ("head", "script", "style", "pre")
_BLOCKS = ("p", "li", "h1", "h2", "h3", "h4", "div", "dt", "dd", "td", "th", "tr", "br")
_ENDS = tuple(".。!！?？:：")


class Sentences(HTMLParser):
    """Collects the text of a page's blocks."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self._hidden = 0  # how many hidden elements are open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line with each block."""
        self._hidden += tag in _HIDDEN
        if tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """End a line with each block."""
        self._hidden -= tag in _HIDDEN
        if tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Take text that a reader sees; line breaks in the source mean nothing."""
        if not self._hidden:
            self._pieces.append(data.replace("\n", " "))

    def text(self) -> str:
        """Return the lines that end as sentences do."""
        lines = (" ".join(line.split()) for line in "".join(self._pieces).split("\n"))
        return "\n".join(line for line in lines if line.endswith(_ENDS))


def pages(share: Path, language: str) -> list[str]:
    """Read the pages of a language that have a sentence, in the order of their names.

    Args:
        share: ``/usr/share``, or wherever the packages were unpacked.
        language: One of ``PAGES``.

    Raises:
        ValueError: If a book is not there: names where it should be.
    """
    found = []
    for pattern in PAGES[language]:
        paths = sorted(share.glob(pattern))
        if not paths:
            raise ValueError(f"There is no {share / pattern}: install the packages that {Path(__file__).name} names.")
        for path in paths:
            sentences = Sentences()
            sentences.feed(path.read_text(encoding="utf-8"))
            if text := sentences.text():
                found.append(text)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make JSON lines of handbooks in English and in Chinese.")
    parser.add_argument("folder", type=Path, help="where english.jsonl and chinese.jsonl go")
    parser.add_argument("--share", type=Path, default=Path("/usr/share"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for language in PAGES:
        texts = pages(arguments.share, language)
        path = arguments.folder / f"{language}.jsonl"
        path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
        print(f"{path}: {len(texts)} documents, {sum(len(text.encode()) for text in texts):,} bytes")
