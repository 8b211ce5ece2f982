"""The fields of ``config.json``: sizes under their published names, and the attention method.

The published code knows three names for what we call scaling (``normalization``), and two for the similarity
(``norm_method``, with ``CosScale_value``); the fine-tunes of arXiv 2501.08570 repeat them in ``my_info_dict``.
Methods that those names cannot say stand in ``attention_method`` alone, and ``normalization`` is then null. That does
not stop every reader: the first port of GAU-α to torch leaves scores unnormalised then, and takes CosScale, which it
does not know, for a dot product.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import method_from
from gau_alpha.checkpoints.head_fields import HEAD_KEY, head_fields
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.scaling import InfoScale, LogLength, NoScaling, Scaling
from gau_alpha.similarity import CosScale, DotProduct
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import shown

MASKED_LM = "GAUAlphaForMaskedLM"
"""What the published code calls a masked language model under ``architectures``."""

METHOD_KEY = "attention_method"
"""The entry of ``config.json`` that describes the attention method in full."""

SOFTMAX_PLUS_BASE = 512
"""The number of keys at which the published softmax_plus leaves scores as they are."""

NORMALIZATIONS = ("softmax", "softmax_plus", "InfoScale")
"""Published values of ``normalization``: no scaling, ``LogLength(512)``, ``InfoScale``."""

NORM_METHODS = ("noCosScale", "CosScale")
"""Published values of ``norm_method``: dot product or cosine."""

METHOD_FIELDS = ("normalization", "norm_method", "CosScale_value")
"""Fields in which the published code keeps its attention method."""

REMOTE_CODE = "modeling_gau_alpha"
"""The file of a folder, ``modeling_gau_alpha.py``, by which ``transformers`` finds our classes."""

AUTO_MAP = {
    "AutoConfig": f"{REMOTE_CODE}.GAUAlphaConfig",
    "AutoModel": f"{REMOTE_CODE}.GAUAlphaModel",
    "AutoModelForMaskedLM": f"{REMOTE_CODE}.GAUAlphaForMaskedLM",
    "AutoModelForSequenceClassification": f"{REMOTE_CODE}.GAUAlphaForSequenceClassification",
    "AutoModelForTokenClassification": f"{REMOTE_CODE}.GAUAlphaForTokenClassification",
    "AutoModelForMultipleChoice": f"{REMOTE_CODE}.GAUAlphaForMultipleChoice",
    "AutoModelForQuestionAnswering": f"{REMOTE_CODE}.GAUAlphaForQuestionAnswering",
}
"""Auto class of ``transformers`` → our class; ``gau_alpha.checkpoints.transformers`` has them."""

EPSILON = "layer_norm_eps"
"""The published name of ``norm_eps``."""

ONLY: dict[str, tuple[object, ...]] = {
    "model_type": ("gau_alpha",),
    "hidden_act": ("swish", "silu"),
    "attention_scale": (True,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
}
"""What the model computes, whatever the file says; another value means another model."""

WITHOUT_EFFECT = frozenset(
    """
    _attn_implementation_autoset _name_or_path architectures auto_map bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward classifier_dropout cross_attention_hidden_size decoder_start_token_id diversity_penalty
    do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label label2id language
    length_penalty license max_length max_position_embeddings min_length my_info_dict no_repeat_ngram_size
    num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states output_scores
    pad_token_id prefix problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id summary_activation summary_first_dropout summary_last_dropout summary_proj_to_labels summary_type
    summary_use_proj suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p
    torch_dtype torchscript train_length transformers_version typical_p use_bfloat16 use_cache
    """.split()  # noqa: SIM905  (seventy quoted names would be harder to read)
)
"""What transformers writes into every config.json, and heads of other tasks: nothing of it changes the encoder."""


def read_fields(path: Path) -> dict[str, Any]:
    """Read ``config.json`` and check that every field is one that is understood.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no JSON object, or a field is unknown, of the wrong type or contradicts another.
    """
    return check_fields(read_json(path), path)


def check_fields(stored: object, path: Path) -> dict[str, Any]:
    """Check that every field of a ``config.json`` is one that is understood.

    Args:
        stored: What the file holds; the published name of ``norm_eps`` becomes ours in it.
        path: The file, for messages.

    Raises:
        ValueError: As ``read_fields``.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"{path} holds a JSON {type(stored).__name__}; it should be an object.")
    sizes = get_type_hints(GAUAlphaConfig)
    known = {*sizes, *ONLY, *WITHOUT_EFFECT, *METHOD_FIELDS, METHOD_KEY, HEAD_KEY, EPSILON, "embedding_size"}
    if unknown := sorted(stored.keys() - known):
        raise ValueError(
            f"{path} has fields that are not known here: {', '.join(map(shown, unknown))}. They may change what the "
            f"model computes; take them out if they do not."
        )
    for name, allowed in ONLY.items():
        if name in stored and stored[name] not in allowed:
            said = shown(stored[name])
            raise ValueError(f"{path} says {name} {said}; only {_options(allowed)} can be computed here.")
    if EPSILON in stored:
        if stored.setdefault("norm_eps", stored[EPSILON]) != stored[EPSILON]:
            raise ValueError(
                f"{path} contradicts itself: {EPSILON} is {shown(stored[EPSILON])}, "
                f"norm_eps {shown(stored['norm_eps'])}."
            )
        del stored[EPSILON]
    for name in sizes.keys() & stored.keys():
        if not _is_a(stored[name], sizes[name]):
            raise ValueError(f"{path}: {name} must be of type {sizes[name].__name__}, got {shown(stored[name])}.")
    if "vocab_size" not in stored:
        raise ValueError(f"{path} lacks vocab_size.")
    try:
        sizes_in(stored, tied=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    width = stored.get("hidden_size", GAUAlphaConfig.hidden_size)
    if stored.get("embedding_size") not in (None, width):
        raise ValueError(
            f"{path} says embedding_size {shown(stored['embedding_size'])} and hidden_size {width}; embeddings of "
            f"another width than the encoder's can't be computed here."
        )
    return stored


def sizes_in(stored: Mapping[str, Any], tied: bool) -> GAUAlphaConfig:
    """Take the sizes from a ``config.json``.

    Args:
        stored: What ``read_fields`` returned.
        tied: Whether the head shares its weight with the embeddings, for a file that does not say.
    """
    known = {field.name for field in fields(GAUAlphaConfig)}
    return GAUAlphaConfig(**{"tie_word_embeddings": tied, **{name: stored[name] for name in known & stored.keys()}})


def method_in(stored: Mapping[str, Any]) -> AttentionMethod | None:
    """Build the attention method that a ``config.json`` names.

    Args:
        stored: What ``read_fields`` returned.

    Returns:
        The method; None if the file says nothing of it.

    Raises:
        ValueError: If a name is unknown or two fields contradict each other.
    """
    named = {name: _agreed(stored, name) for name in METHOD_FIELDS}
    named = {name: value for name, value in named.items() if value is not None}
    if METHOD_KEY in stored:
        if not isinstance(stored[METHOD_KEY], dict | str):
            got = shown(stored[METHOD_KEY])
            raise ValueError(f"config.json: {METHOD_KEY} must give a strategy per axis, or name a preset; got {got}.")
        # The published names, where they say all of it, are read in no time; a description is parsed as a config is.
        method = _published(named, stored) or method_from(stored[METHOD_KEY], f"config.json: {METHOD_KEY}")
        if isinstance(stored[METHOD_KEY], str) and (length := train_length_in(stored)) is not None:
            method = method.with_train_length(length)  # no preset says what it was trained at
        said = published_names(method)
        if contradicting := [name for name in named if said.get(name) != named[name]]:
            parts = [f"{name} is {shown(named[name])}" for name in contradicting]
            raise ValueError(
                f"config.json contradicts itself: {', '.join(parts)}, but {METHOD_KEY} is {method.summary()}. "
                f"Correct one of them."
            )
        return method
    return _from_published(named, stored) if named else None


def _published(named: Mapping[str, Any], stored: Mapping[str, Any]) -> AttentionMethod | None:
    """Build the method from the published names, if that is just what the full description says."""
    if "normalization" not in named:
        return None
    try:
        method = _from_published(named, stored)
    except ValueError:  # said of the description in the caller's words
        return None
    return method if method.describe() == stored[METHOD_KEY] else None


def _from_published(named: Mapping[str, Any], stored: Mapping[str, Any]) -> AttentionMethod:
    if algorithm := _info(stored).get("algorithm"):
        raise ValueError(
            f"config.json says algorithm {shown(algorithm)} in my_info_dict, which the published code applies when it "
            f"evaluates. Pass the method that you want, or take the entry out."
        )
    norm_method, scale = named.get("norm_method", "noCosScale"), named.get("CosScale_value")
    if norm_method not in NORM_METHODS:
        raise ValueError(f"config.json says norm_method {shown(norm_method)}; choose from {_options(NORM_METHODS)}.")
    if (norm_method == "CosScale") != (scale is not None):
        raise ValueError(
            f"config.json contradicts itself: norm_method is {shown(norm_method)} and CosScale_value {shown(scale)}. "
            f"CosScale needs a value, and a value needs CosScale."
        )
    if scale is not None and not _is_a(scale, float):
        raise ValueError(f"config.json: CosScale_value must be a number, got {shown(scale)}.")
    similarity = DotProduct() if scale is None else CosScale(float(scale))
    return AttentionMethod(similarity, _scaling(named.get("normalization", "softmax"), stored))


def train_length_in(stored: Mapping[str, Any], method: AttentionMethod | None = None) -> int | None:
    """Take the tokens per training row from a ``config.json``.

    Args:
        stored: What ``read_fields`` returned.
        method: What ``method_in`` returned.

    Returns:
        ``train_length``, which we write; else what the method was made for; else ``max_position_embeddings``, which is
        the training length of the published models; None if nothing says it.

    Raises:
        ValueError: If it is not a positive whole number.
    """
    own = getattr(method.scaling, "train_length", None) if method else None
    for name, value in (
        ("train_length", stored.get("train_length")),
        (METHOD_KEY, own),
        ("max_position_embeddings", stored.get("max_position_embeddings")),
    ):
        if value is not None:
            if not _is_a(value, int) or value < 1:
                raise ValueError(f"config.json: {name} must be a positive whole number, got {shown(value)}.")
            return value
    return None


def published_names(method: AttentionMethod) -> dict[str, Any]:
    """Say in the published fields what a method is, the reverse of ``method_in``.

    Args:
        method: The method.

    Returns:
        ``normalization``, ``norm_method`` and, for CosScale, ``CosScale_value``; ``normalization`` alone and None where
        the published code knows no such method.
    """
    plain = AttentionMethod()
    rest_is_plain = all(
        getattr(method, axis).describe() == getattr(plain, axis).describe()
        for axis in ("position", "visibility", "normalizer")
    )
    similarity, normalization = method.similarity, _normalization(method.scaling)
    if not rest_is_plain or method.turns or normalization is None or type(similarity) not in (DotProduct, CosScale):
        return {"normalization": None}
    names: dict[str, Any] = {"normalization": normalization, "norm_method": "noCosScale"}
    if isinstance(similarity, CosScale):
        scale = similarity.scale
        names |= {"norm_method": "CosScale", "CosScale_value": int(scale) if scale == int(scale) else scale}
    return names


def all_fields(
    config: GAUAlphaConfig,
    method: AttentionMethod,
    train_length: int | None = None,
    pad_token_id: int | None = None,
    head: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Say in plain data what goes into ``config.json``.

    Args:
        config: Sizes and rates.
        method: The attention method.
        train_length: Tokens per training row, if known.
        pad_token_id: The id that fills rows, if known; the published code hides it from attention.
        head: A head's class and its own arguments; None: the masked-language-model head.
        labels: What the head chooses from.
    """
    sizes = asdict(config)
    epsilon = sizes.pop("norm_eps")
    length = train_length or getattr(method.scaling, "train_length", None)
    return {
        "model_type": "gau_alpha",
        "architectures": [MASKED_LM if head is None else str(head["class_path"]).rpartition(".")[2]],
        **sizes,
        EPSILON: epsilon,
        "hidden_act": "swish",
        "attention_scale": True,
        **({"max_position_embeddings": length, "train_length": length} if length else {}),
        **({} if pad_token_id is None else {"pad_token_id": pad_token_id}),
        **published_names(method),
        METHOD_KEY: method.describe(),
        **({} if head is None else head_fields(head, labels)),
        "auto_map": AUTO_MAP,
    }


def _scaling(normalization: object, stored: Mapping[str, Any]) -> Scaling:
    if normalization == "softmax":
        return NoScaling()
    if normalization == "softmax_plus":
        return LogLength(base=SOFTMAX_PLUS_BASE)
    if normalization != "InfoScale":
        said, options = shown(normalization), _options(NORMALIZATIONS)
        raise ValueError(f"config.json says normalization {said}; choose from {options}.")
    # What the published evaluation takes for the training length; its training code has 512 hard-wired.
    train_length = train_length_in(stored)
    if train_length is None:
        raise ValueError("config.json says normalization 'InfoScale', which needs max_position_embeddings too.")
    return InfoScale(train_length=train_length)


def _normalization(scaling: Scaling) -> str | None:
    if type(scaling) is NoScaling:
        return "softmax"
    if type(scaling) is LogLength and (scaling.base, scaling.minimum) == (SOFTMAX_PLUS_BASE, 0):
        return "softmax_plus"
    if type(scaling) is InfoScale and scaling.train_length is not None and scaling.minimum == 0:
        return "InfoScale"
    return None


def _agreed(stored: Mapping[str, Any], name: str) -> Any:
    """Return what all places say that may hold a field of the method; None if none does."""
    info = _info(stored)
    inside = info.get("train_normalization" if name == "normalization" else "train_norm_method")
    # training writes {"name": …, "CosScale_value": …}, evaluation the name alone
    entry = inside if isinstance(inside, dict) else {"name": inside}
    places = {name: stored.get(name), "my_info_dict": entry.get(name if name == "CosScale_value" else "name")}
    said = {place: value for place, value in places.items() if value is not None}
    if len(set(map(repr, said.values()))) > 1:
        parts = " and ".join(f"{shown(value)} in {place}" for place, value in said.items())
        raise ValueError(f"config.json contradicts itself on {name}: {parts}. Correct one of them.")
    return next(iter(said.values()), None)


def _info(stored: Mapping[str, Any]) -> dict[str, Any]:
    info = stored.get("my_info_dict") or {}
    if not isinstance(info, dict):
        raise ValueError(f"config.json: my_info_dict must be an object, got {shown(info)}.")
    return info


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max
    return type(value) is kind


def _options(values: tuple[object, ...]) -> str:
    return ", ".join(map(repr, values))
