"""Attention: what an axis is (``strategy``), what a batch looks like (``layout``), the axes put together (``method``).

``presets.py`` turns names and plain data into methods, ``kernels/`` computes them. Nothing is imported here: the axes
need ``strategy`` and ``layout``, and the rest needs the axes.
"""
