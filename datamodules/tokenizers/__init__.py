"""From text to token ids and back.

A new tokenizer is a subclass of ``Tokenizer``. Whatever the text says, it never encodes to the mask or the padding:
a corpus may well talk about "[MASK]". Special tokens are found by name, never by number.
"""

from datamodules.tokenizers.base import Tokenizer
from datamodules.tokenizers.bytes import ByteTokenizer
from datamodules.tokenizers.characters import CharacterTokenizer
from datamodules.tokenizers.file import TokenizerFile
from datamodules.tokenizers.word_piece_vocab import WordPieceVocab

__all__ = ["ByteTokenizer", "CharacterTokenizer", "Tokenizer", "TokenizerFile", "WordPieceVocab"]
