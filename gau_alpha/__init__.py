"""GAU-α pretrained on short sequences, and how far past that length it still works."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gau_alpha.attention.method import AttentionMethod
    from gau_alpha.cli.loading import load
    from gau_alpha.config import GAUAlphaConfig
    from gau_alpha.extrapolation import ExtrapolationEngine
    from gau_alpha.extrapolation.inspection import attention_entropies
    from gau_alpha.extrapolation.report import Report
    from gau_alpha.finetuning.module import GAUAlphaFineTuning
    from gau_alpha.model import GAUAlphaForMaskedLM
    from gau_alpha.training.module import GAUAlphaModule

__all__ = [
    "AttentionMethod",
    "ExtrapolationEngine",
    "GAUAlphaConfig",
    "GAUAlphaFineTuning",
    "GAUAlphaForMaskedLM",
    "GAUAlphaModule",
    "Report",
    "attention_entropies",
    "load",
]

_HOMES = {
    "AttentionMethod": "gau_alpha.attention.method",
    "ExtrapolationEngine": "gau_alpha.extrapolation",
    "GAUAlphaConfig": "gau_alpha.config",
    "GAUAlphaFineTuning": "gau_alpha.finetuning.module",
    "GAUAlphaForMaskedLM": "gau_alpha.model",
    "GAUAlphaModule": "gau_alpha.training.module",
    "Report": "gau_alpha.extrapolation.report",
    "attention_entropies": "gau_alpha.extrapolation.inspection",
    "load": "gau_alpha.cli.loading",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: whoever wants one axis, or a list of methods, does not wait for Lightning.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(_HOMES[name]), name)
    return value
