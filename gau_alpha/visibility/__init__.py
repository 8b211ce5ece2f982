"""Which keys a query may see: the axis ``visibility``.

Padding and other documents of a packed row are hidden for every strategy; a strategy adds its own rule. To add one:
subclass ``Visibility`` and implement ``mask`` (then it is right), ``band`` (then it is fast on long rows) and
``num_visible_keys`` (then counting is fast too). ``tests/gau_alpha/attention/test_strategies.py`` finds the class by
itself.
"""

from gau_alpha.visibility.base import Band, Full, Visibility, allowed, count_visible_keys
from gau_alpha.visibility.sinks import AttentionSinks, LMInfinite
from gau_alpha.visibility.window import Window

__all__ = ["AttentionSinks", "Band", "Full", "LMInfinite", "Visibility", "Window", "allowed", "count_visible_keys"]
