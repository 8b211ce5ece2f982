"""The shape of a GAU-α model."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class GAUAlphaConfig:
    """Sizes and rates of a GAU-α model, under the field names of its Hugging Face ``config.json``.

    Args:
        vocab_size: Embedding rows V. In a config file it is filled in from the data's vocabulary.
        hidden_size: Width H of the residual stream.
        intermediate_size: Width E of gates and values.
        attention_key_size: Width D of queries and keys; even, since rotations act on pairs.
        num_hidden_layers: Gated attention units, one after the other.
        type_vocab_size: Rows of the token-type embedding; a token gets row 0 unless told otherwise.
        hidden_dropout_prob: Dropout on embeddings and on each unit's output.
        attention_probs_dropout_prob: Dropout on attention weights.
        initializer_range: Standard deviation of the normal distribution that weights start from.
        norm_eps: ε under the root of the norm.
        use_bias: Whether projections, query and key offsets and the head have biases.
        tie_word_embeddings: Whether the head shares its weight with the word embeddings.

    Raises:
        ValueError: If a size is not positive, ``attention_key_size`` is odd, or a rate is outside [0, 1).
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
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "attention_key_size", "num_hidden_layers")
        for name in (*sizes, "type_vocab_size", "initializer_range", "norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.attention_key_size % 2:
            raise ValueError(
                f"attention_key_size must be even (rotations act on pairs), got {self.attention_key_size}."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
