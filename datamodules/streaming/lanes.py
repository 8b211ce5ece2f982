"""Parts of a stream that are read independently of each other.

Document d of the stream belongs to lane d mod (number of lanes of all ranks). A lane is read in windows of so many
documents; the rows of a window are shuffled. So the batches of a lane are a pure function of (seed, epoch, lane), and a
place in it is two numbers, the window and the batch in it, from where it can be read on without what came before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datamodules.dataset import MaskedRows, MLMBatch
from datamodules.masking import Masking
from datamodules.randomness import Purpose, random_order
from datamodules.rows import RowMaker
from datamodules.sampling import Request
from datamodules.sources import TextSource
from datamodules.split import Split
from datamodules.tokenizers import Tokenizer

_MOST_WINDOWS = 1 << 32


class UnreadableText(ValueError):
    """The source has met something that it refuses."""


class Place(NamedTuple):
    """Where a lane goes on.

    Attributes:
        window: Number of the window.
        batch: Number of the batch in it.
        is_end: Whether there is nothing left.
    """

    window: int = 0
    batch: int = 0
    is_end: bool = False


class Turn(NamedTuple):
    """A request for the next batch of a lane.

    Attributes:
        epoch: The epoch.
        lane: The lane, counted over all ranks.
        start: Where reading of the lane began in this process.
        number: Number of the batch, counted from there.
        step: Number of the turn since the start of training, as schedules count it.
    """

    epoch: int
    lane: int
    start: Place
    number: int
    step: int


class LaneBatch(TypedDict):
    """A batch and the place behind it; at the end of a lane the batch is a row of padding.

    Attributes:
        batch: The batch.
        place: (3,) int64, a ``Place``.
    """

    batch: MLMBatch
    place: torch.Tensor


class DocumentsInMemory:
    """A few documents.

    Args:
        documents: Their tokens.

    Attributes:
        lengths: (documents,) number of tokens of each.
    """

    def __init__(self, documents: Sequence[NDArray[np.int32]]) -> None:
        self._documents = documents
        self.lengths: NDArray[np.int64] = np.array([len(document) for document in documents], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._documents)

    def document(self, index: int) -> NDArray[np.int32]:
        """Return one document, (tokens,) int32."""
        return self._documents[index]


@dataclass(frozen=True)
class Stream:
    """What all lanes share.

    Attributes:
        source: The text.
        tokenizer: Its encoding.
        rows: How documents become rows.
        masking: What to hide.
        train_length: Tokens per row.
        batch_size: Rows per batch.
        seed: Seed of order and masks.
        split: Which documents are held out: no row is made of them.
        window: Documents per window.
        num_lanes: Lanes of all ranks.
    """

    source: TextSource
    tokenizer: Tokenizer
    rows: RowMaker
    masking: Masking
    train_length: int
    batch_size: int
    seed: int
    split: Split
    window: int
    num_lanes: int

    def encode(self, texts: Sequence[str]) -> DocumentsInMemory:
        """Tokenise; blank documents are empty."""
        return DocumentsInMemory(self.tokenizer.encode_batch(["" if text.isspace() else text for text in texts]))

    def for_training(self, texts: Sequence[str]) -> list[str]:
        """Blank what is held out, so that the documents keep their numbers."""
        held_out = self.split.is_below(texts)
        return ["" if out else text for text, out in zip(texts, held_out, strict=True)]

    def masked(self, documents: DocumentsInMemory) -> MaskedRows:
        """Make rows of documents."""
        plan = self.rows.plan(documents.lengths, self.train_length, self.batch_size, self.seed)
        everything = np.arange(len(documents))
        return MaskedRows(documents, everything, plan, self.masking, self.tokenizer.vocabulary, self.seed)


class Lane:
    """One lane in one epoch, read forward.

    Args:
        stream: What all lanes share.
        epoch: The epoch.
        lane: The lane, counted over all ranks.
        start: Where to begin.
    """

    def __init__(self, stream: Stream, epoch: int, lane: int, start: Place) -> None:
        self._stream = stream
        self._epoch = epoch
        self._lane = lane
        self._window, self._batch, self._is_end = start
        skipped = start.window * stream.window * stream.num_lanes
        self._texts = stream.source.every(lane + skipped, stream.num_lanes)
        self._rows: MaskedRows | None = None
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def skip(self) -> None:
        """Go past a batch that another process makes."""
        self._advance()

    def next(self, step: int) -> LaneBatch:
        """Make the next batch."""
        rows = self._advance()
        masked = self._rows
        if masked is None:  # nothing was ever read: padding needs no document
            masked = self._stream.masked(DocumentsInMemory([np.zeros(1, dtype=np.int32)]))
        # Named by what they hold: masks must not depend on how many lanes there are.
        pieces = masked.plan.pieces(rows)
        first = np.flatnonzero(np.diff(pieces.row, prepend=-1))
        number = self._window * self._stream.window + pieces.document[first]
        sample_ids = (number * self._stream.num_lanes + self._lane) << 32 | pieces.start[first]
        request = Request(self._epoch, rows, self._stream.train_length, step)
        place = torch.tensor([self._window, self._batch, self._is_end], dtype=torch.int64)
        return LaneBatch(batch=masked.make(request, sample_ids), place=place)

    def _advance(self) -> NDArray[np.int64]:
        """Go past the next batch and return its rows; none at the end."""
        size = self._stream.batch_size
        while not self._is_end:
            if self._rows is None and not self._read():
                self._is_end = True
                break
            rows = self._order[self._batch * size : (self._batch + 1) * size]
            if len(rows):
                self._batch += 1
                return rows
            self._window, self._batch, self._rows = self._window + 1, 0, None
        return np.empty(0, dtype=np.int64)

    def _read(self) -> bool:
        try:
            texts = list(islice(self._texts, self._stream.window))
        except ValueError as error:
            raise UnreadableText(*error.args) from error
        if not texts:
            return False
        self._rows = self._stream.masked(self._stream.encode(self._stream.for_training(texts)))
        stream = self._lane * _MOST_WINDOWS + self._window
        self._order = random_order(self._stream.seed, Purpose.STREAM, self._epoch, len(self._rows), stream)
        return True


class Lanes(Dataset[LaneBatch | UnreadableText]):
    """Answers turns. Each process keeps the lanes that it is asked about open.

    Args:
        stream: What all lanes share.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._open: dict[int, tuple[int, Place, int, Lane]] = {}  # by lane: epoch, start, next index

    def __getitem__(self, turn: Turn) -> LaneBatch | UnreadableText:
        """Make a batch; batches of the lane that other processes make are gone past.

        What is wrong with the text is an answer too: raised in a worker, it would reach the user wrapped in that
        worker's traceback.
        """
        epoch, start, index, lane = self._open.get(turn.lane, (-1, Place(), 0, None))
        if lane is None or (epoch, start) != (turn.epoch, turn.start) or index > turn.number:
            index, lane = 0, Lane(self.stream, turn.epoch, turn.lane, turn.start)
        self._open[turn.lane] = turn.epoch, turn.start, turn.number + 1, lane
        try:
            for _ in range(index, turn.number):
                lane.skip()
            return lane.next(turn.step)
        except UnreadableText as error:
            return error

    def __getstate__(self) -> dict[str, Stream]:
        return {"stream": self.stream}

    def __setstate__(self, state: dict[str, Stream]) -> None:
        self.__init__(state["stream"])  # type: ignore[misc]


def turns(epoch: int, rank: int, world: int, places: Sequence[Place], first: int, first_step: int) -> Iterator[Turn]:
    """Ask the lanes of a rank in turn, without end.

    Args:
        epoch: The epoch.
        rank: This rank.
        world: Number of ranks.
        places: Where each of the rank's lanes begins.
        first: Number of the turn, counted from the beginning of the epoch.
        first_step: The step at the beginning of the epoch.
    """
    index = [0] * len(places)
    number = first
    while True:
        lane = number % len(places)
        yield Turn(epoch, lane * world + rank, places[lane], index[lane], first_step + number)
        index[lane] += 1
        number += 1
