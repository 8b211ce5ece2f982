"""What a source of text is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice


class TextSource(ABC):
    """A corpus: documents in a fixed order.

    Attributes:
        left_out: What the last whole reading left out, a line for each reason. A source that leaves out documents says
            so when it has read to the end, and keeps the lines here: whoever reads a cache of it says them again.
    """

    left_out: Sequence[str] = ()

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield the documents, in the same order every time, without holding them all."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash everything that decides what ``documents`` yields: contents and options, no paths, no times."""

    def num_documents_hint(self) -> int | None:
        """Guess the number of documents for the progress bar; None where a guess is not cheap."""
        return None

    def every(self, first: int, step: int) -> Iterator[str]:
        """Yield the documents number ``first``, ``first + step``, …: the share of one of many readers.

        A source that can leave out a document without reading it should say so by a version of its own. Whatever is
        counted, every document is in exactly one of ``every(0, n)``, … ``every(n - 1, n)``.
        """
        return islice(self.documents(), first, None, step)
