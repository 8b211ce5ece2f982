"""Hiding whole words.

B rows of a batch, L tokens of a row.
"""

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import require_kind
from datamodules.masking.groups import GroupMasking
from datamodules.masking.segmenters import Segmenter
from datamodules.tokenizers import Tokenizer
from datamodules.words import WordTable

_MANY_IDEOGRAPHS = 0.05
_LONG_WORD = 32


@dataclass(frozen=True)
class WholeWordMasking(GroupMasking):
    """Hide all tokens of a word together. What a word is, the tokens say: parts are marked, or stand without a space.

    Chinese and Japanese have no spaces: their words need a segmenter, and without one such a corpus is refused, because
    single characters would be hidden in the name of words. A text without any words (DNA) is refused, too.

    Args:
        rate: Share of tokens to predict, in (0, 1]; or a schedule over training steps.
        mask_fraction: Share of targets replaced by the mask token.
        random_fraction: Share of targets replaced by a random ordinary token; the remaining targets stay as they are.
        segmenter: How runs of Chinese or Japanese characters are cut into words: ``WordList`` or ``Jieba`` of
            ``datamodules.masking``.

    Raises:
        ValueError: If a rate or fraction is out of range, or the segmenter is none.
    """

    segmenter: Segmenter | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_kind(Segmenter | None, segmenter=self.segmenter)

    def with_tokenizer(self, tokenizer: Tokenizer, sample: NDArray[np.int32]) -> "_Bound":
        """Take the words from a tokenizer; see ``Masking.bound``.

        Raises:
            ValueError: If the tokenizer tells no words: Chinese or Japanese characters without a segmenter, or text
                without words.
        """
        words = tokenizer.word_table()
        share = float(words.ideographic[sample].mean()) if len(sample) else 0.0
        name = type(tokenizer).__name__
        if share > _MANY_IDEOGRAPHS and not (words.characters[sample[words.ideographic[sample]]] != "").all():
            raise ValueError(
                f"WholeWordMasking: {share:.0%} of the tokens are of Chinese or Japanese, where a segmenter has to say "
                f"which characters make a word, and it works on tokens that are one character each; {name} has others. "
                "Use WordPieceVocab or CharacterTokenizer with a `segmenter`, or SpanMasking with this tokenizer."
            )
        if share > _MANY_IDEOGRAPHS and self.segmenter is None:
            raise ValueError(
                f"WholeWordMasking: {share:.0%} of the tokens are Chinese or Japanese characters, which {name} does "
                "not put together to words: single characters would be hidden. Set `segmenter` to "
                "datamodules.masking.WordList or Jieba, or use TokenMasking."
            )
        goes_on = words.goes_on[sample[1:]] & words.is_open[sample[:-1]] & ~words.ideographic[sample[1:]]
        mean = len(sample) / max(int((~goes_on).sum()), 1)
        if mean > _LONG_WORD:
            raise ValueError(
                f"WholeWordMasking: a word has {mean:.0f} tokens on average, so this is text without words for {name}. "
                "Use TokenMasking or SpanMasking."
            )
        options = {one.name: getattr(self, one.name) for one in fields(self)}
        return _Bound(**options, words=words)

    def begins(
        self,
        input_ids: NDArray[np.int64],
        joined: NDArray[np.bool_],
        sample_ids: NDArray[np.int64],
        seed: int,
        epoch: int,
    ) -> NDArray[np.bool_]:
        """Do nothing: where words begin, only a tokenizer can say."""
        raise AssertionError("bound() first")


@dataclass(frozen=True)
class _Bound(WholeWordMasking):
    """A rule that knows where words begin."""

    words: WordTable = field(kw_only=True)

    def begins(
        self,
        input_ids: NDArray[np.int64],
        joined: NDArray[np.bool_],
        sample_ids: NDArray[np.int64],
        seed: int,
        epoch: int,
    ) -> NDArray[np.bool_]:
        """Begin where the tokens, or the segmenter, say so."""
        begins = np.ones_like(joined)
        begins[:, 1:] = ~(self.words.goes_on[input_ids[:, 1:]] & self.words.is_open[input_ids[:, :-1]])
        if self.segmenter is not None:
            for row in range(len(input_ids)):
                self._segment(input_ids[row], joined[row], begins[row])
        return begins

    def _segment(self, input_ids: NDArray[np.int64], joined: NDArray[np.bool_], begins: NDArray[np.bool_]) -> None:
        """Mark, in place, where words of a row's ideographic runs begin: (L,) each."""
        assert self.segmenter is not None
        run = self.words.ideographic[input_ids]  # (L,)
        goes_on = run.copy()
        goes_on[1:] &= run[:-1] & joined[1:]
        goes_on[0] = False
        for start in np.flatnonzero(run & ~goes_on).tolist():
            stop = start + 1
            while stop < len(run) and goes_on[stop]:
                stop += 1
            text = "".join(self.words.characters[input_ids[start:stop]])
            sizes = [len(word) for word in self.segmenter.split(text)]
            begins[start:stop] = False
            begins[start + np.cumsum([0, *sizes[:-1]])] = True
            if stop < len(run):
                begins[stop] = True
