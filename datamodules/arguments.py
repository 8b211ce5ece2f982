"""Arguments that data modules check alike."""


def require_at_least(least: int, **numbers: int) -> None:
    """Refuse numbers that are too small.

    Args:
        least: The smallest that is allowed.
        **numbers: The arguments, by name.

    Raises:
        ValueError: If one is smaller.
    """
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name}={number} must be at least {least}. Set it to a larger number.")
