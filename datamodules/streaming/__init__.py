"""Corpora that are read as they come: nothing is cached, nothing is counted in advance.

``lanes.py`` cuts the stream into parts that are read independently, ``loader.py`` takes batches from them in turn and
knows where to go on after a stop, ``module.py`` is the data module.
"""

from datamodules.streaming.module import StreamingTextDataModule

__all__ = ["StreamingTextDataModule"]
