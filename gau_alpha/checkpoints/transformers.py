"""GAU-α under the Auto classes of ``transformers``: importing this file registers it there.

A folder that was exported here opens by them after that import, or, with ``trust_remote_code=True``, without it: the
folder's own ``modeling_gau_alpha.py`` does nothing but import this. The models are ours, parameter for parameter; what
is here translates arguments and outputs. ``config.json`` is read as data, by the same rules as everywhere.

``transformers`` is optional: nothing else of this package imports it.

B batch, L length, K choices, C labels, H hidden size, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import METHODS
from gau_alpha.checkpoints.fields import EPSILON, METHOD_KEY, check_fields, method_in, sizes_in
from gau_alpha.checkpoints.folders import CONFIG, write_remote_code
from gau_alpha.checkpoints.head_fields import HEAD_KEY, head_arguments_in
from gau_alpha.checkpoints.tensors import HEAD, WORDS
from gau_alpha.config import GAUAlphaConfig as Sizes
from gau_alpha.untrusted.registry import built

_SIZES = asdict(Sizes(vocab_size=12_000))
DEFAULTS = {**{name: x for name, x in _SIZES.items() if name != "norm_eps"}, EPSILON: _SIZES["norm_eps"]}
"""What a config says that nothing is said to: the sizes of the published base model."""

IGNORED = -100
"""The label of what is no target."""


class GAUAlphaConfig(PreTrainedConfig):
    """What ``config.json`` says, for ``transformers``; ``gau_alpha.GAUAlphaConfig`` explains sizes and rates.

    Args:
        **fields: Those of ``config.json`` by name: ``vocab_size``, ``hidden_size`` and the other sizes;
            ``attention_method``, the method in plain data, as ``AttentionMethod.describe`` gives it, or the name of
            one; and what every config of ``transformers`` takes.
    """

    model_type = "gau_alpha"

    def __init__(self, **fields: Any) -> None:
        super().__init__(**{**DEFAULTS, **fields})

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Do nothing: ``transformers`` would copy this file into folders, which have a file that imports it."""

    def fields(self) -> dict[str, Any]:
        """Return the fields of ``config.json``, checked.

        Raises:
            ValueError: If one is unknown or contradicts another.
        """
        stored = {name: value for name, value in self.to_dict().items() if name != METHOD_KEY or value is not None}
        return check_fields(stored, Path(CONFIG))

    def sizes(self) -> Sizes:
        """Return sizes and rates as our models take them."""
        return sizes_in(self.fields(), tied=True)

    def method(self) -> AttentionMethod:
        """Build the attention method that the fields name; dot product and RoPE where they name none.

        Raises:
            ValueError: If it is none of ours.
        """
        return method_in(self.fields()) or AttentionMethod()


class GAUAlphaPreTrainedModel(PreTrainedModel):
    """One of our models, whose parts and parameters this has under the same names.

    Args:
        config: What ``config.json`` says.
    """

    config_class = GAUAlphaConfig
    base_model_prefix = "gau_alpha"
    supports_gradient_checkpointing = True
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012  (as transformers declares it)
    _keys_to_ignore_on_load_unexpected: list[str] = [r"^cls\."]  # noqa: RUF012

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__(config)
        with torch.device("cpu"):  # transformers builds on no device at all, and a method may hold tensors of its own
            method = config.method()
        ours = self._build(config, method)
        for name, part in ours.named_children():
            self.add_module(name, part)
        self._ours = (ours,)  # in a tuple: a module of its own would double all names
        self.post_init()

    @property
    def ours(self) -> Any:
        """The model of this package: the same parameters, with ``using``, ``method`` and the rest."""
        return self._ours[0]

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether training keeps only each layer's input; what ``gradient_checkpointing_enable`` sets."""
        return self.ours.gau_alpha.encoder.activation_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        self.ours.gau_alpha.encoder.activation_checkpointing = enable

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings."""
        return self.ours.gau_alpha.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.ours.gau_alpha.embeddings.word_embeddings = value

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """Write the folder as ``transformers`` does, and the file that finds these classes again.

        Args:
            save_directory: The folder.
            **kwargs: As ``PreTrainedModel.save_pretrained`` takes them.
        """
        self.config.attention_method = self.ours.method.describe()
        super().save_pretrained(save_directory, **kwargs)
        write_remote_code(Path(save_directory))

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Do nothing: ``transformers`` would copy this file into folders, which have a file that imports it."""

    def _build(self, config: GAUAlphaConfig, method: AttentionMethod) -> Any:
        from gau_alpha.model import GAUAlphaModel as Ours  # files know no models until they are asked for one

        return Ours(config.sizes(), method)

    def _init_weights(self, module: nn.Module) -> None:
        self.ours._init_weights(module)

    def _returned(self, output: ModelOutput, return_dict: bool | None) -> Any:
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()


class GAUAlphaModel(GAUAlphaPreTrainedModel):
    """The encoder alone: ``last_hidden_state``."""

    _keys_to_ignore_on_load_unexpected: list[str] = [r"^cls\.", r"^classifier\.", r"^qa_outputs\."]  # noqa: RUF012

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens. None: all are real.
            position_ids: (B, L) int64. None: counted from 0.
            token_type_ids: (B, L) int64, which text of a pair. None: all are 0.
            segment_ids: (B, L) int64, equal within a document of a packed row. None: a row is one document.
            return_dict: Whether to return a ``BaseModelOutput``, or a tuple; default: what the config says.

        Returns:
            ``last_hidden_state`` (B, L, H).
        """
        x = self.ours.encode(input_ids, attention_mask, position_ids, segment_ids, token_type_ids)  # (B, L, H)
        return self._returned(BaseModelOutput(last_hidden_state=x), return_dict)


class GAUAlphaForMaskedLM(GAUAlphaPreTrainedModel):
    """The masked language model: ``logits``, and the mean ``loss`` where ``labels`` are given."""

    _tied_weights_keys: dict[str, str] = {HEAD: WORDS}  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected: list[str] = []  # noqa: RUF012

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Predict tokens.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens. None: all are real.
            position_ids: (B, L) int64. None: counted from 0.
            token_type_ids: (B, L) int64, which text of a pair. None: all are 0.
            segment_ids: (B, L) int64, equal within a document of a packed row. None: a row is one document.
            labels: (B, L) int64, −100 off target. None: no loss.
            return_dict: Whether to return a ``MaskedLMOutput``, or a tuple; default: what the config says.

        Returns:
            ``loss`` () and ``logits`` (B, L, V).
        """
        logits = self.ours(
            input_ids, attention_mask, position_ids, segment_ids, token_type_ids=token_type_ids
        )  # (B, L, V)
        loss = None if labels is None else _loss(logits, labels)
        return self._returned(MaskedLMOutput(loss=loss, logits=logits), return_dict)

    def get_output_embeddings(self) -> nn.Module:
        """Return the head's linear map."""
        return self.ours.cls.predictions["decoder"]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head's linear map."""
        self.ours.cls.predictions["decoder"] = new_embeddings

    def _build(self, config: GAUAlphaConfig, method: AttentionMethod) -> Any:
        from gau_alpha.model import GAUAlphaForMaskedLM as Ours

        return Ours(config.sizes(), method)


class _WithHead(GAUAlphaPreTrainedModel):
    """A head of ``gau_alpha.finetuning`` of the same name, for the labels of the config."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify; the head of this name in ``gau_alpha.finetuning`` says what.

        Args:
            input_ids: (B, L) int64; (B, K, L) for multiple choice.
            attention_mask: The same shape, nonzero on real tokens. None: all are real.
            position_ids: (B, L) int64. None: counted from 0.
            token_type_ids: The shape of ``input_ids``, which text of a pair. None: all are 0.
            labels: (B,) int64, or (B, L) for token classification, −100 off target. None: no loss.
            return_dict: Whether to return a ``ModelOutput``, or a tuple; default: what the config says.

        Returns:
            ``loss`` () and ``logits``: (B, C), (B, L, C) or (B, K).
        """
        logits = self.ours(input_ids, attention_mask, position_ids, token_type_ids)
        loss = None if labels is None else _loss(logits, labels)
        return self._returned(self._output(loss=loss, logits=logits), return_dict)

    _output: ClassVar[type[ModelOutput]]

    def _build(self, config: GAUAlphaConfig, method: AttentionMethod) -> Any:
        from gau_alpha import finetuning

        kind = getattr(finetuning, type(self).__name__)
        stored = config.fields()
        said = head_arguments_in(stored, kind.own_arguments)
        known = ("config", "method", "kernel", "labels")  # which are not the head's own
        arguments = built(METHODS.arguments(kind, said, f"{CONFIG}: {HEAD_KEY}", known))
        labels = _labels(config.id2label) if kind.has_labels else ()
        return kind(config.sizes(), method, labels=labels, **arguments)


class GAUAlphaForSequenceClassification(_WithHead):
    """A label per text."""

    _output = SequenceClassifierOutput


class GAUAlphaForTokenClassification(_WithHead):
    """A label per token."""

    _output = TokenClassifierOutput


class GAUAlphaForMultipleChoice(_WithHead):
    """The best of several texts."""

    _output = MultipleChoiceModelOutput


class GAUAlphaForQuestionAnswering(_WithHead):
    """First and last token of an answer."""

    def forward(  # type: ignore[override]  # an answer has two ends in the place of a label
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Score tokens as first and as last of the answer.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens. None: all are real.
            position_ids: (B, L) int64. None: counted from 0.
            token_type_ids: (B, L) int64, which text of a pair. None: all are 0.
            start_positions: (B,) int64, the answer's first token; outside of the row: no target.
            end_positions: (B,) int64, the answer's last token.
            return_dict: Whether to return a ``QuestionAnsweringModelOutput``, or a tuple; default: the config's.

        Returns:
            ``loss`` (), ``start_logits`` and ``end_logits`` (B, L).
        """
        start, end = self.ours(input_ids, attention_mask, position_ids, token_type_ids).unbind(-1)  # (B, L)
        loss = None
        if start_positions is not None and end_positions is not None:
            ends = ((start, start_positions), (end, end_positions))
            loss = torch.stack(
                [_loss(x, place.where((place >= 0) & (place < x.shape[1]), IGNORED)) for x, place in ends]
            )
            loss = loss.mean()
        output = QuestionAnsweringModelOutput(loss=loss, start_logits=start, end_logits=end)
        return self._returned(output, return_dict)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Average cross-entropy of (…, C) logits at labels (…), in float32; 0, attached, where there is no target."""
    logits, labels = logits.flatten(0, -2).float(), labels.flatten()
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / (labels != IGNORED).sum().clamp_min(
        1
    )


def _labels(names: Mapping[Any, str] | None) -> tuple[str, ...]:
    return tuple(name for _, name in sorted((names or {}).items()))


_MODELS = {
    AutoModel: GAUAlphaModel,
    AutoModelForMaskedLM: GAUAlphaForMaskedLM,
    AutoModelForSequenceClassification: GAUAlphaForSequenceClassification,
    AutoModelForTokenClassification: GAUAlphaForTokenClassification,
    AutoModelForMultipleChoice: GAUAlphaForMultipleChoice,
    AutoModelForQuestionAnswering: GAUAlphaForQuestionAnswering,
}

AutoConfig.register(GAUAlphaConfig.model_type, GAUAlphaConfig, exist_ok=True)
for _auto, _model in _MODELS.items():
    cast(Any, _auto).register(GAUAlphaConfig, _model, exist_ok=True)
