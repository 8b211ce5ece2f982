"""``gau-alpha fill-mask``: a quick look at what a model predicts.

B batch (1), L length, V vocabulary.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from datamodules import TokenizerFile
from datamodules.tokenizers import Tokenizer
from gau_alpha.checkpoints import load_folder, read_checkpoint
from gau_alpha.cli.stored_tokenizer import tokenizer_in, tokenizer_of
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.escaping import printable

LONG = 16_384
"""From so many tokens on a note says that it takes its time."""


@dataclass(frozen=True)
class Prediction:
    """A token in the place of a mask.

    Attributes:
        token: Its text.
        id: Its id.
        probability: Of this token among all of the vocabulary.
    """

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class Mask:
    """A mask and what the model puts there.

    Attributes:
        position: Of the mask among the text's tokens, from 0.
        predictions: The most likely tokens, best first.
    """

    position: int
    predictions: list[Prediction]


def fill_mask(args: list[str]) -> int:
    """Print what a model puts in the place of masks.

    Args:
        args: The command's arguments.

    Returns:
        The exit code.

    Raises:
        ValueError: If the model or its tokenizer can't be read, a text is empty or has no mask, or ``--top_k`` is not a
            number of tokens that the vocabulary has.
    """
    parser = argparse.ArgumentParser(
        prog="gau-alpha fill-mask",
        description="Print the most likely tokens for each [MASK] of a text, with their probabilities. Several masks "
        "are filled independently, in one pass. Texts are read whole, whatever their length; time grows with the "
        "square of it.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="text with [MASK]; default: standard input, by line")
    parser.add_argument("--model", type=Path, required=True, help="a Lightning checkpoint, or a Hugging Face folder")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; default: the model's own")
    parser.add_argument("--top_k", type=int, default=5, help="tokens per mask (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object per text and line")
    options = parser.parse_args(args)
    texts = options.texts or [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    if not texts:
        raise ValueError("There is no text: give it after the options, or a line each on standard input.")
    model, tokenizer, framed = open_model(options.model, options.tokenizer)
    if not 1 <= options.top_k <= model.config.vocab_size:
        raise ValueError(f"--top_k is {options.top_k}; choose from 1 to {model.config.vocab_size}.")
    # All are read before the first is computed: a mistake in the last should not cost an hour.
    encoded = [encode(text, tokenizer, framed) for text in texts]
    for text, ids in zip(texts, encoded, strict=True):
        if len(ids) >= LONG:
            print(f"gau-alpha: note: {len(ids)} tokens; time grows with the square of that.", file=sys.stderr)
        masks = list(predict(model, tokenizer, ids, options.top_k))
        print(_as_json(text, ids, masks) if options.json else _as_text(text, masks))
    return 0


def open_model(path: Path, tokenizer: Path | None = None) -> tuple[GAUAlphaForMaskedLM, Tokenizer, bool]:
    """Open a model and its tokenizer.

    Args:
        path: A Lightning checkpoint, or a Hugging Face folder.
        tokenizer: A tokenizer's file, in the place of the model's own.

    Returns:
        The model in evaluation mode, the tokenizer, and whether texts go between [CLS] and [SEP].

    Raises:
        ValueError: If one can't be read, or the model has no embedding for some of the tokenizer's ids.
    """
    framed = False
    own: Tokenizer
    if path.is_dir():
        model = load_folder(GAUAlphaForMaskedLM, path)
        own, framed = (TokenizerFile(str(tokenizer)), False) if tokenizer else tokenizer_in(path)
    else:
        checkpoint = read_checkpoint(path)
        own = TokenizerFile(str(tokenizer)) if tokenizer else tokenizer_of(checkpoint, path)[0]
        model = GAUAlphaModule.load_from_checkpoint(path).model.eval()
    if own.vocabulary.size > model.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {own.vocabulary.size} ids, the model in {path} only {model.config.vocab_size}: give "
            f"the tokenizer that it was trained with."
        )
    return model, own, framed


def encode(text: str, tokenizer: Tokenizer, framed: bool = False) -> list[int]:
    """Encode a text in which the mask's name stands for the mask.

    Args:
        text: The text.
        tokenizer: The tokenizer.
        framed: Whether to put [CLS] before and [SEP] after it.

    Raises:
        ValueError: If the text is empty or has no mask.
    """
    vocabulary = tokenizer.vocabulary
    name = tokenizer.decode([vocabulary.mask_id]).strip()
    if not text.strip():
        raise ValueError(f"The text is empty; give one with {name} in the place of a token.")
    if name not in text:
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise ValueError(f"There is no {name} in {shown!r}; put it in the place of a token.")
    pieces = tokenizer.encode_between_masks(text.split(name))
    ids = [token for piece in pieces for token in (*map(int, piece), vocabulary.mask_id)][:-1]
    if framed:
        frame = {tokenizer.decode([special]).strip(): special for special in vocabulary.special_ids}
        ids = [*([frame["[CLS]"]] if "[CLS]" in frame else []), *ids, *([frame["[SEP]"]] if "[SEP]" in frame else [])]
    return ids


def predict(model: GAUAlphaForMaskedLM, tokenizer: Tokenizer, ids: list[int], top_k: int) -> Iterator[Mask]:
    """Fill the masks of a text, each as if the others stayed masked.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        ids: Token ids, with masks.
        top_k: Tokens per mask.
    """
    row = torch.tensor([ids])  # (1, L)
    places = (row[0] == tokenizer.vocabulary.mask_id).nonzero().squeeze(1)  # (masks,)
    with torch.inference_mode():
        logits = model(row, target_positions=places[None])[0]  # (masks, V): the last layer computes nothing else
        best = logits.float().softmax(-1).topk(top_k)
    for place, values, tokens in zip(places.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
        yield Mask(
            place,
            [Prediction(_shown(tokenizer, token), token, value) for token, value in zip(tokens, values, strict=True)],
        )


def _shown(tokenizer: Tokenizer, token: int) -> str:
    # a model may have more embedding rows than the tokenizer has tokens
    return tokenizer.decode([token]) if token < tokenizer.vocabulary.size else f"<{token}>"


def _as_json(text: str, ids: list[int], masks: list[Mask]) -> str:
    content = {"text": text, "num_tokens": len(ids), "masks": [asdict(mask) for mask in masks]}
    line = json.dumps(content, ensure_ascii=False)
    # json writes out some of the characters that a terminal would obey, and leaves others
    return "".join(x if printable(x) == x else json.dumps(x)[1:-1] for x in line)


def _as_text(text: str, masks: list[Mask]) -> str:
    lines = [printable(text if len(text) <= 200 else f"{text[:197]}...")]
    for mask in masks:
        lines.append(f"  token {mask.position}")
        lines += [f"    {one.probability:.4f}  {one.token!r}" for one in mask.predictions]
    return "\n".join(lines)
