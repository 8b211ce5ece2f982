"""Errors that end a run and that the command line explains in one message; imports nothing, so that it starts fast."""


class NotFiniteError(ArithmeticError):
    """A loss or a gradient was infinite or not a number; its step has changed nothing."""
