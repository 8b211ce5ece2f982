"""GAU-α pretrained on short sequences, and how far past that length it still works."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gau_alpha.config import GAUAlphaConfig
    from gau_alpha.fine_tuning import GAUAlphaFineTuning
    from gau_alpha.method import AttentionMethod
    from gau_alpha.model import GAUAlphaForMaskedLM
    from gau_alpha.module import GAUAlphaModule

__all__ = ["AttentionMethod", "GAUAlphaConfig", "GAUAlphaFineTuning", "GAUAlphaForMaskedLM", "GAUAlphaModule"]

_HOMES = {
    "AttentionMethod": "gau_alpha.method",
    "GAUAlphaConfig": "gau_alpha.config",
    "GAUAlphaFineTuning": "gau_alpha.fine_tuning",
    "GAUAlphaForMaskedLM": "gau_alpha.model",
    "GAUAlphaModule": "gau_alpha.module",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: whoever wants one axis, or a list of methods, does not wait for Lightning.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
