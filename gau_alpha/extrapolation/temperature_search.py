"""The temperature at which an entropy takes a value: bracketed, and then found by secants."""

import math
from collections.abc import Callable

PRECISION = 5e-4
"""A τ is good enough if the entropy is as wanted up to this share of it."""

FARTHEST = 64.0
"""How many times larger or smaller than in training τ may become."""

_MOST_SECANTS = 60  # a smooth function takes about five


def solve(
    entropy: Callable[[float], float], wanted: float, start: float, trained: float, where: str
) -> tuple[float, float]:
    """Finds where a falling function of τ takes a value, by the Illinois variant of regula falsi in ln τ.

    (G. Dahlquist and Å. Björck, "Numerical Methods", 1974, section 6.4.) Entropies take long, and a smooth function
    needs a third of the evaluations that bisection does.

    Args:
        entropy: The function.
        wanted: Its value.
        start: Where to begin.
        trained: The τ of training; further than ``FARTHEST`` from it nothing is looked for.
        where: Names the place in an error.

    Returns:
        (τ, entropy there), the entropy within ``PRECISION`` of ``wanted``.

    Raises:
        ValueError: If there is no such τ within reach.
    """

    def excess(at: float) -> float:  # of the entropy, at ln τ
        found = entropy(math.exp(at))
        if not math.isfinite(found):
            raise ValueError(f"The entropy is {found} in {where} at a temperature of {math.exp(at):g}.")
        return found / wanted - 1

    if not wanted > 0:
        raise ValueError(
            f"The entropy to restore in {where} is {wanted} nats: in training its queries look at one key each, and no "
            f"temperature can be compared with that."
        )

    x = math.log(start)
    f = excess(x)
    step = math.copysign(0.25, f)  # too high an entropy asks for a higher τ
    while abs(f) > PRECISION:  # until two ends have the value between them
        if abs(x - math.log(trained)) >= math.log(FARTHEST):
            raise ValueError(
                f"No temperature restores the entropy of {wanted:.3f} nats in {where}: even {math.exp(x):g} does not."
            )
        other, other_f = x, f
        x += step
        f = excess(x)
        step = max(-1.0, min(1.0, 2 * step))
        if f * other_f <= 0:
            break
    for _ in range(_MOST_SECANTS):
        if abs(f) <= PRECISION:
            return math.exp(x), wanted * (1 + f)
        new = x - f * (x - other) / (f - other_f)
        new_f = excess(new)
        if new_f * f <= 0:
            other, other_f = x, f
        else:
            other_f /= 2  # this end has stayed: let the next secant fall on its side
        x, f = new, new_f
    raise ValueError(f"The entropy jumps past {wanted:.3f} nats in {where}, at a temperature of {math.exp(x):g}.")
