"""The evaluation engine: lengths × methods × documents, without Lightning.

One idea per file:

- ``engine.py``     what is measured, in which order, and what happens when memory runs out
- ``protocols.py``  which positions a pass over a document hides (``mlm``)
- ``batches.py``    passes cut into batches, batches dealt to processes
- ``sums.py``       what one pass leaves behind, and how documents are made of passes
- ``entropy.py``    attention entropy while the blocks stream by
- ``intervals.py``  bootstrap over documents
- ``ranks.py``      what processes tell each other
- ``memory.py``     peak memory, and which errors mean that there was too little
- ``isolation.py``  everything training must find as it was
- ``rows.py``       the result: one row per (method, length)

A new masking protocol is a class with the interface of ``protocols.Protocol``, handed to the engine; nothing else
changes.
"""

from gau_alpha.extrapolation.engine import ExtrapolationEngine, Progress
from gau_alpha.extrapolation.isolation import undisturbed
from gau_alpha.extrapolation.protocols import MaskedTokens, Protocol
from gau_alpha.extrapolation.rows import Row, Status

__all__ = ["ExtrapolationEngine", "MaskedTokens", "Progress", "Protocol", "Row", "Status", "undisturbed"]
