"""The shape of a GAU-α model."""

from dataclasses import dataclass

from gau_alpha.untrusted.limits import require_number, require_whole
from gau_alpha.untrusted.registry import shown

SHAPING = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "attention_key_size",
    "num_hidden_layers",
    "type_vocab_size",
    "use_bias",
    "tie_word_embeddings",
)
"""Fields of the config that the weights' shapes depend on."""

MOST_LAYERS = 10_000
"""Each is built of Python objects, whatever its size."""

MOST_PARAMETERS = 10**11
"""Weights of 400 GB, more than a machine would take."""


@dataclass(frozen=True)
class GAUAlphaConfig:
    """Sizes and rates of a GAU-α model, under the field names of its Hugging Face ``config.json``.

    Args:
        vocab_size: Embedding rows V. In a config file it is filled in from the data's vocabulary.
        hidden_size: Width H of the residual stream.
        intermediate_size: Width E of gates and values.
        attention_key_size: Width D of queries and keys; even, since rotations act on pairs.
        num_hidden_layers: Gated attention units, one after the other.
        type_vocab_size: SequenceLayout of the token-type embedding; a token gets row 0 unless told otherwise.
        hidden_dropout_prob: Dropout on embeddings and on each unit's output.
        attention_probs_dropout_prob: Dropout on attention weights.
        initializer_range: Standard deviation of the normal distribution that weights start from.
        norm_eps: ε under the root of the norm.
        use_bias: Whether projections, query and key offsets and the head have biases.
        tie_word_embeddings: Whether the head shares its weight with the word embeddings.

    Raises:
        ValueError: If a size is no positive whole number, or larger than any machine could hold,
            ``attention_key_size`` is odd, or a rate is outside [0, 1).
    """

    vocab_size: int
    hidden_size: int = 768
    intermediate_size: int = 1536
    attention_key_size: int = 128
    num_hidden_layers: int = 24
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    norm_eps: float = 1e-12
    use_bias: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "attention_key_size", "type_vocab_size"):
            require_whole(name, getattr(self, name))
        require_whole("num_hidden_layers", self.num_hidden_layers, most=MOST_LAYERS)
        for name in ("initializer_range", "norm_eps"):
            require_number(name, getattr(self, name), above=0)
        if self.attention_key_size % 2:
            raise ValueError(
                f"attention_key_size must be even (rotations act on pairs), got {self.attention_key_size}."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            require_number(name, getattr(self, name), least=0, below=1)
        for name in ("use_bias", "tie_word_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {shown(getattr(self, name))}.")
        layer = self.hidden_size * (3 * self.intermediate_size + self.attention_key_size)
        parameters = self.hidden_size * (self.vocab_size + self.type_vocab_size) + self.num_hidden_layers * layer
        if parameters > MOST_PARAMETERS:
            raise ValueError(
                f"A model with hidden_size {self.hidden_size}, intermediate_size {self.intermediate_size}, "
                f"attention_key_size {self.attention_key_size}, {self.num_hidden_layers} layers and vocab_size "
                f"{self.vocab_size} has {parameters:.3g} parameters; at most {MOST_PARAMETERS:.3g} are allowed."
            )
