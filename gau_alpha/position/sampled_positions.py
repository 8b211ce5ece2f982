"""Training on short rows with the positions of long ones.

In training, rows get position ids drawn from a longer range; in evaluation these are plain RoPE. Temperatures count
keys, not ids. The draw is a pure function of (seed, epoch, sample).

B batch, L length.
"""

import torch
from torch import Tensor

from gau_alpha.position.base import Position, RoPE
from gau_alpha.untrusted.limits import require_whole

_MOST_IDS = 2**24
"""All of them are shuffled for every row."""


class TrainingIds(RoPE):
    """What strategies that draw position ids share.

    Args:
        target_length: Ids are drawn from 0 … target_length − 1; the length that the model is meant for.
        base: As in ``RoPE``.
        seed: Seed of the draw.

    Raises:
        ValueError: If ``target_length`` is below 2 or above 2²⁴, ``seed`` is negative or ``base`` is not above 1.
    """

    samples_positions = True
    training_free = False

    def __init__(self, target_length: int, base: float = 10_000.0, seed: int = 0) -> None:
        super().__init__(base)
        require_whole("target_length", target_length, least=2, most=_MOST_IDS)
        require_whole("seed", seed, least=0, most=2**64 - 1)
        self.target_length = target_length
        self.seed = seed

    def evaluated(self) -> Position:
        """Return plain RoPE."""
        return RoPE(self.base)

    def sample_position_ids(self, sample_ids: list[int], epoch: int, length: int) -> Tensor:
        """Draw strictly increasing ids for each row, (B, L) int64.

        Raises:
            ValueError: If rows are longer than ``target_length``.
        """
        if length > self.target_length:
            raise ValueError(f"target_length {self.target_length} is below the {length} tokens of a training row.")
        return torch.stack([self.draw(length, _generator(self.seed, epoch, sample)) for sample in sample_ids])

    def draw(self, length: int, generator: torch.Generator) -> Tensor:
        """Draw a row's ids.

        Args:
            length: L.
            generator: Draws them.

        Returns:
            (L,) int64, strictly increasing and below ``target_length``.
        """
        raise NotImplementedError


class PoSE(TrainingIds):
    """Rows cut into chunks with random gaps between them (Zhu et al. 2024, PoSE, arXiv 2309.10400, sec. 3.2).

    Chunks are cut at random places. The first starts at 0; the gaps before the later ones are sorted uniform draws
    from 0 … target_length − length, so that ids rise and every distance below target_length occurs. In the authors'
    code, for two chunks, the first has at most half of the row, and the second is text from farther on; here a row is
    cut anywhere, and its text is as it was.

    Args:
        target_length: Ids are drawn from 0 … target_length − 1.
        chunks: Chunks per row; 2 in the paper.
        base: As in ``RoPE``.
        seed: Seed of the draw.

    Raises:
        ValueError: If ``target_length`` is below 2 or above 2²⁴, ``chunks`` is below 2, ``seed`` is negative or
            ``base`` is not above 1.
    """

    paper = "arXiv 2309.10400"

    def __init__(self, target_length: int, chunks: int = 2, base: float = 10_000.0, seed: int = 0) -> None:
        super().__init__(target_length, base, seed)
        require_whole("chunks", chunks, least=2, why="a single chunk skips nothing")
        self.chunks = chunks

    def draw(self, length: int, generator: torch.Generator) -> Tensor:
        """Draw cuts and gaps."""
        num_cuts = min(self.chunks, length) - 1
        cuts = torch.randperm(length - 1, generator=generator)[:num_cuts].sort().values + 1
        gaps = torch.randint(self.target_length - length + 1, (num_cuts,), generator=generator).sort().values
        index = torch.arange(length)
        chunk = torch.bucketize(index, cuts, right=True)  # (L,), 0 … num_cuts
        return index + torch.cat([torch.zeros(1, dtype=torch.int64), gaps])[chunk]


class RandomizedPositions(TrainingIds):
    """A sorted random subset of all ids (Ruoss et al. 2023, arXiv 2305.16843, sec. 3.1).

    Args:
        target_length: Ids are drawn from 0 … target_length − 1.
        base: As in ``RoPE``.
        seed: Seed of the draw.

    Raises:
        ValueError: If ``target_length`` is below 2 or above 2²⁴, ``seed`` is negative or ``base`` is not above 1.
    """

    paper = "arXiv 2305.16843"

    def draw(self, length: int, generator: torch.Generator) -> Tensor:
        """Draw without replacement."""
        return torch.randperm(self.target_length, generator=generator)[:length].sort().values


def _generator(*counters: int) -> torch.Generator:
    """Seed a generator of its own with a mix of the counters (the finaliser of SplitMix64, after each of them)."""
    state, word = 0, (1 << 64) - 1
    for counter in counters:
        state = (state + counter + 0x9E3779B97F4A7C15) & word
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & word
        state ^= state >> 31
    return torch.Generator().manual_seed(state & (word >> 1))
