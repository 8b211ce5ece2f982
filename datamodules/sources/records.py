"""The text field of records: what is taken, what is refused, what is left out."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from datamodules.arguments import require_kind, shown

ON_BAD_RECORD = ("refuse", "skip")
"""What can be done about a record that can't be read."""


class TextField:
    """Takes the text out of records, and counts those that have none.

    An empty string is a text: a document without a token, of which no row is made.

    Args:
        name: Name of the field.
        on_bad_record: ``refuse`` raises at the first record whose field is missing, null, a number or anything else
            that is no text; ``skip`` leaves such records out and ``report`` says how many.

    Raises:
        ValueError: If ``on_bad_record`` is neither, or the name is no text.
    """

    def __init__(self, name: str, on_bad_record: str) -> None:
        require_kind(str, field=name)
        if on_bad_record not in ON_BAD_RECORD:
            raise ValueError(f"on_bad_record={shown(on_bad_record)} must be one of {list(ON_BAD_RECORD)}.")
        self.name = name
        self.skips = on_bad_record == "skip"
        self.skipped: Counter[str] = Counter()

    def of(self, record: Mapping[str, Any], place: str) -> str | None:
        """Take the text of a record.

        Args:
            record: The record.
            place: Where it was found, for the message.

        Returns:
            The text; None if the record is left out.

        Raises:
            ValueError: If there is none and it must not be left out.
        """
        if self.name not in record:
            self.leave_out(
                f"{place}: no field {self.name!r}, only {shown(sorted(record))}. Set `field` to the one that holds "
                "the text",
                "without the field",
            )
            return None
        text = record[self.name]
        if not isinstance(text, str):
            kind = type(text).__name__
            self.leave_out(
                f"{place}: field {self.name!r} holds a {kind}, but must hold a string. "
                "Set `field` to the one that holds the text, correct the record",
                f"whose field holds a {kind}",
            )
            return None
        if "\0" in text:
            self.leave_out(
                f"{place}: field {self.name!r} has a NUL at character {text.index(chr(0))}, which is no text. "
                "Correct the record",
                "with a NUL",
            )
            return None
        try:
            text.encode()
        except UnicodeEncodeError as error:
            self.leave_out(
                f"{place}: field {self.name!r} has half of a surrogate pair at character {error.start}, "
                "which is no text. Correct the record",
                "with half of a surrogate pair",
            )
            return None
        return text

    def leave_out(self, message: str, reason: str) -> None:
        """Refuse a record, or count it as left out.

        Args:
            message: Where it is and what is wrong with it, without a full stop.
            reason: What is counted, such as "with a NUL".

        Raises:
            ValueError: If it must not be left out.
        """
        if not self.skips:
            raise ValueError(f"{message}, or leave such records out with `on_bad_record: skip`.")
        self.skipped[reason] += 1

    def report(self, source: str) -> list[str]:
        """Say once what was left out, and return the lines."""
        lines = [
            f"{source}: left out {count} records {reason} (field {self.name!r})."
            for reason, count in sorted(self.skipped.items())
        ]
        for line in lines:
            rank_zero_warn(line)
        return lines
