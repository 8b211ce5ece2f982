"""GAU-α, and GAU-α with a masked-language-model head, in plain torch.

Modules carry the names that weights have in Hugging Face GAU-α checkpoints, so a state dict needs no translation.

B batch, L length, T target positions in each row, D key size, E value width, H hidden size, V vocabulary.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gau_alpha.attention.kernels import Kernel, Observer, build_kernel
from gau_alpha.attention.layout import SequenceLayout, take
from gau_alpha.attention.method import AttentionMethod, AttentionPlan
from gau_alpha.attention.presets import TRAINED, load_preset, resolve_method
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.untrusted.trust import trusting

LayerObserver = Callable[[int, Tensor, Tensor, Tensor, Tensor | None, Tensor | None], None]
"""Called with the layer's number, then as ``kernels.Observer`` is, block by block."""


def norm(x: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + ε) over the last dimension, in float32 at least: no scale, no offset.

    Args:
        x: (…, H).
        eps: ε.

    Returns:
        (…, H), of the dtype of ``x``.
    """  # noqa: D403  (the formula begins with a variable)
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return F.rms_norm(wide, x.shape[-1:], eps=eps).to(x.dtype)


class ScaleOffset(nn.Module):
    """x ⊙ γ (+ β), which makes queries or keys of the base they share.

    Args:
        size: D.
        bias: Whether there is a β.
    """

    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (B, L, D), in float32."""
        scaled = x.float() * self.weight.float()
        return scaled if self.bias is None else scaled + self.bias.float()


class GatedAttentionUnit(nn.Module):
    """GAU(x) = W_o (u ⊙ A v) with u, v, base = split(silu(W_i x)) (Hua et al. 2022, arXiv 2202.10447, eq. 4–6).

    One head; queries and keys are the same base, scaled and shifted. A is what the method's normalizer makes of scores:
    softmax, as in GAU-α, unless told otherwise; the paper's squared ReLU is ``ReLUSquared``.

    Args:
        config: Sizes and rates.
        method: What makes scores and weights.
    """

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod) -> None:
        super().__init__()
        self.key_size = config.attention_key_size
        self.sizes = [config.intermediate_size, config.intermediate_size, self.key_size]  # E, E, D
        self.attention_dropout = config.attention_probs_dropout_prob
        self.i_dense = nn.Linear(config.hidden_size, sum(self.sizes), config.use_bias)
        self.q_scaleoffset = ScaleOffset(self.key_size, config.use_bias)
        self.k_scaleoffset = ScaleOffset(self.key_size, config.use_bias)
        self.o_dense = nn.Linear(config.intermediate_size, config.hidden_size, config.use_bias)
        self.method = method

    def forward(
        self,
        x: Tensor,
        plan: AttentionPlan,
        kernel: Kernel,
        query_positions: Tensor | None = None,
        observer: Observer | None = None,
    ) -> Tensor:
        """Gate and attend.

        Args:
            x: (B, L, H).
            plan: The method's plan for these rows.
            kernel: How to compute attention.
            query_positions: (B, T) int64, the only places in each row that are computed. None: all.
            observer: Sees the attention weights.

        Returns:
            (B, L, H); (B, T, H) at ``query_positions``.
        """
        u, v, base = F.silu(self.i_dense(x)).split(self.sizes, dim=-1)  # (B, L, E), (B, L, E), (B, L, D)
        query, key = self.method.similarity.prepare(self.q_scaleoffset(base), self.k_scaleoffset(base))  # (B, L, D)
        dropout = self.attention_dropout if self.training else 0.0
        context = kernel(query, key, v, plan, query_positions, dropout, observer)  # (B, L | T, E)
        u = u if query_positions is None else take(u, query_positions)  # (B, L | T, E)
        return self.o_dense(u * context)  # (B, L | T, H)

    def query_and_key(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Make the prepared queries and keys of (B, L, H), (B, L, D) each, and nothing else."""
        base = F.silu(self.i_dense(x)[..., -self.key_size :])  # (B, L, D)
        return self.method.similarity.prepare(self.q_scaleoffset(base), self.k_scaleoffset(base))


class GAUBlock(nn.Module):
    """norm(x + dropout(GAU(x))).

    Args:
        config: Sizes and rates.
        method: The unit's attention method.
    """

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod) -> None:
        super().__init__()
        self.gau = GatedAttentionUnit(config, method)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm_eps = config.norm_eps

    def forward(
        self,
        x: Tensor,
        plan: AttentionPlan,
        kernel: Kernel,
        query_positions: Tensor | None = None,
        observer: Observer | None = None,
    ) -> Tensor:
        """Apply the unit, the residual connection and the norm.

        Args:
            x: (B, L, H).
            plan: The method's plan for these rows.
            kernel: How to compute attention.
            query_positions: (B, T) int64, the only places that are computed. None: all.
            observer: Sees the attention weights.

        Returns:
            (B, L, H); (B, T, H) at ``query_positions``.
        """
        residual = x if query_positions is None else take(x, query_positions)  # (B, L | T, H)
        update = self.dropout(self.gau(x, plan, kernel, query_positions, observer))  # (B, L | T, H)
        return norm(residual + update, self.norm_eps)


class Embeddings(nn.Module):
    """norm(word + token type), then dropout.

    Args:
        config: Sizes and rates.
    """

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm_eps = config.norm_eps

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Embed ``input_ids`` and ``token_type_ids`` (B, L), all 0 if None, as (B, L, H)."""
        types = self.token_type_embeddings
        kind = types.weight[0] if token_type_ids is None else types(token_type_ids)  # (H,) or (B, L, H)
        x = self.word_embeddings(input_ids) + kind  # (B, L, H)
        return self.dropout(norm(x, self.norm_eps))


class Encoder(nn.Module):
    """The blocks, one after the other.

    Args:
        config: Sizes and rates.
        method: The attention method; layers get copies of strategies with learned state.
    """

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod) -> None:
        super().__init__()
        self.activation_checkpointing = False
        methods = method.for_layers(config.num_hidden_layers)
        self.layer = nn.ModuleList([GAUBlock(config, layer_method) for layer_method in methods])
        self.key_size = config.attention_key_size

    def forward(
        self,
        x: Tensor,
        layout: SequenceLayout,
        kernel: Kernel,
        observer: LayerObserver | None = None,
        target_positions: Tensor | None = None,
    ) -> Tensor:
        """Apply all blocks.

        With ``target_positions`` and without an observer, which wants to see all queries, the last layer computes only
        these.

        Args:
            x: (B, L, H).
            layout: Padding, documents and positions of the batch.
            kernel: How attention is computed.
            observer: Sees weights and entropies of every layer.
            target_positions: (B, T) int64, places in each row. None: all.

        Returns:
            (B, L, H), or (B, T, H) at ``target_positions``.
        """
        blocks = self.blocks()
        to_come = Counter(block.gau.method for block in blocks)
        plans: dict[AttentionMethod, AttentionPlan] = {}  # kept for as long as a layer needs them
        for number, block in enumerate(blocks):
            method = block.gau.method
            plan = plans.pop(method, None) or method.plan(layout, self.key_size)
            to_come[method] -= 1
            if to_come[method]:
                plans[method] = plan
            last = number == len(blocks) - 1
            only = target_positions if last and observer is None else None
            watching = None if observer is None else partial(observer, number)
            if self.activation_checkpointing and self.training and watching is None:
                x = cast(Tensor, checkpoint(block, x, plan, kernel, only, use_reentrant=False))  # (B, L | T, H)
            else:
                x = block(x, plan, kernel, only, watching)  # (B, L | T, H)
        return x if target_positions is None or observer is None else take(x, target_positions)

    def blocks(self) -> list[GAUBlock]:
        """The layers, in order."""
        return [cast(GAUBlock, block) for block in self.layer]


class GAUAlpha(nn.Module):
    """Embeddings and encoder.

    Args:
        config: Sizes and rates.
        method: The attention method.
    """

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config, method)


class MaskedLMHead(nn.Module):
    """Hidden states to logits over the vocabulary.

    Args:
        config: Sizes and rates.
    """

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__()
        decoder = nn.Linear(config.hidden_size, config.vocab_size, config.use_bias)
        self.predictions = nn.ModuleDict({"decoder": decoder})

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states (…, H) to logits (…, V)."""
        return self.predictions["decoder"](x)


class GAUAlphaModel(nn.Module):
    """Embeddings, encoder and attention method: what models with any head share.

    Args:
        config: Sizes and rates.
        method: The attention method; default: dot product, no scaling, RoPE, everything visible.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.

    Attributes:
        train_length: Tokens per training row, which methods by name are made for; None where it is not known.
    """

    train_length: int | None = None

    def __init__(self, config: GAUAlphaConfig, method: AttentionMethod | None = None, kernel: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.kernel = build_kernel(kernel)
        self.gau_alpha = GAUAlpha(config, method or AttentionMethod())

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        target_positions: Tensor | None = None,
        observer: LayerObserver | None = None,
    ) -> Tensor:
        """Compute hidden states.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens. None: all are real.
            position_ids: (B, L) int64. None: counted from 0 within each document.
            segment_ids: (B, L) int64, equal within a document of a packed row. None: a row is one document.
            token_type_ids: (B, L) int64 below ``type_vocab_size``: which part of a text pair. None: all are 0.
            target_positions: (B, T) int64, the only places in each row that are wanted. None: all.
            observer: Sees the attention weights and entropies of every layer.

        Returns:
            (B, L, H); (B, T, H) with ``target_positions``.

        Raises:
            ValueError: If ``input_ids`` is not of shape (B, L), or a companion's shape differs.
        """
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids must have shape (batch, length), got {tuple(input_ids.shape)}.")
        if token_type_ids is not None and token_type_ids.shape != input_ids.shape:
            raise ValueError(
                f"token_type_ids must have shape {tuple(input_ids.shape)}, got {tuple(token_type_ids.shape)}."
            )
        layout = SequenceLayout.of(input_ids.shape[1], input_ids.device, attention_mask, position_ids, segment_ids)
        x = self.gau_alpha.embeddings(input_ids, token_type_ids)  # (B, L, H)
        return self.gau_alpha.encoder(x, layout, self.kernel, observer, target_positions)  # (B, L | T, H)

    @property
    def method(self) -> AttentionMethod:
        """The attention method, as the first layer has it."""
        return self._layer_methods()[0]

    def set_method(self, method: AttentionMethod) -> None:
        """Replace the attention method of all layers.

        Strategies that ``method`` took over from ``self.method`` keep what each layer learned. Those that were left
        without a ``train_length`` get the model's.
        """
        if self.train_length is not None:
            method = method.with_open_train_length(self.train_length)
        self._put(method.inherit_layer_state(self._layer_methods()))

    @contextmanager
    def using(self, method: AttentionMethod | str) -> Iterator[Self]:
        """Use another method in a ``with`` block, and this model's own again afterwards.

        Args:
            method: A method, of which strategies that it took over from ``self.method`` keep what each layer learned;
                or the name of a preset such as ``infoscale``, applied to this model's own, or a YAML file of yours.

        Raises:
            ValueError: If there is no such preset (those that there are are listed), or no ``train_length`` is known.
        """
        own = self._layer_methods()
        self.set_method(method if isinstance(method, AttentionMethod) else self._named(method))
        try:
            yield self
        finally:
            self._put(own)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw a layer's weights anew: normal, with the config's standard deviation; biases are 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def _named(self, name: object) -> AttentionMethod:
        if not isinstance(name, str):
            raise ValueError(f"The method must be an AttentionMethod or the name of a preset, got {name!r}.")
        if self.train_length is None and name != TRAINED:
            load_preset(name)  # what is misspelt is said first
            raise ValueError(
                f"The model does not know its train_length, which the method {name!r} may need: set it, as in "
                f"model.train_length = 64, or pass an AttentionMethod."
            )
        return resolve_method(name, self.method, self.train_length or 0)

    def _layer_methods(self) -> list[AttentionMethod]:
        return [block.gau.method for block in self.gau_alpha.encoder.blocks()]

    def _put(self, methods: list[AttentionMethod]) -> None:
        device = self.gau_alpha.embeddings.word_embeddings.weight.device
        for method in {id(method): method for method in methods}.values():  # mostly one for all layers
            method.to(device)
        for block, method in zip(self.gau_alpha.encoder.blocks(), methods, strict=True):
            block.gau.method = method


class GAUAlphaForMaskedLM(GAUAlphaModel):
    """GAU-α with a masked-language-model head.

    Args:
        config: Sizes and rates.
        method: The attention method; default: dot product, no scaling, RoPE, everything visible.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        activation_checkpointing: Whether training keeps only each layer's input and computes the rest again for the
            gradient: a third more work, for rows that are too long otherwise.
    """

    def __init__(
        self,
        config: GAUAlphaConfig,
        method: AttentionMethod | None = None,
        kernel: str = "auto",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(config, method, kernel)
        self.gau_alpha.encoder.activation_checkpointing = activation_checkpointing
        self.cls = MaskedLMHead(config)
        self.apply(self._init_weights)
        self.tie()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        target_positions: Tensor | None = None,
        observer: LayerObserver | None = None,
        token_type_ids: Tensor | None = None,
        head: bool = True,
    ) -> Tensor:
        """Predict tokens.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens. None: all are real.
            position_ids: (B, L) int64. None: counted from 0 within each document.
            segment_ids: (B, L) int64, equal within a document of a packed row. None: a row is one document.
            target_positions: (B, T) int64, places in each row whose logits are wanted, as many in every row; some may
                repeat to fill up. With no observer that wants to see others, the last layer computes only these.
                None: all.
            observer: Sees the attention weights and entropies of every layer.
            token_type_ids: (B, L) int64 below ``type_vocab_size``: which part of a text pair. None: all are 0.
            head: Whether logits are wanted, or the hidden states (…, H) that ``cls`` would make them of.

        Returns:
            Logits (B, L, V); (B, T, V) with ``target_positions``: then no logits of other positions are computed.

        Raises:
            ValueError: If ``input_ids`` is not of shape (B, L), or a companion's shape differs.
        """
        x = self.encode(
            input_ids, attention_mask, position_ids, segment_ids, token_type_ids, target_positions, observer
        )  # (B, L | T, H)
        return self.cls(x) if head else x

    def tie(self) -> None:
        """Let the head share its weight with the word embeddings, if the config says so."""
        if self.config.tie_word_embeddings:
            self.cls.predictions["decoder"].weight = self.gau_alpha.embeddings.word_embeddings.weight

    @classmethod
    def from_pretrained(
        cls,
        folder: str | PathLike[str],
        method: AttentionMethod | None = None,
        num_hidden_layers: int | None = None,
        trust: Sequence[str] = (),
    ) -> "GAUAlphaForMaskedLM":
        """Load ``config.json`` and ``model.safetensors`` (or ``pytorch_model.bin``) from a Hugging Face folder.

        Args:
            folder: The folder.
            method: The attention method; default: the one that ``config.json`` names.
            num_hidden_layers: Take the first so many layers of a deeper model, and read no others. Default: all.
            trust: Classes of your own that ``config.json`` may name, such as ``my_scaling.PowerLaw``; it can name no
                other that is not ours.

        Returns:
            The model, in evaluation mode.

        Raises:
            ValueError: If a file is missing or damaged, ``config.json`` has unknown or contradictory fields or names a
                class that is neither ours nor trusted, or the weights do not fit it.
        """
        from gau_alpha.checkpoints import load_folder  # the model itself knows nothing of files

        with trusting(trust):
            return load_folder(cls, folder, method, num_hidden_layers)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, in Hugging Face layout."""
        from gau_alpha.checkpoints import save_folder

        save_folder(self, folder)
