"""Ids of stream entries as a user writes them."""

import re

from worker.errors import BadInput


def check_id(text: str) -> bytes:
    """The id in bytes; milliseconds alone will do."""
    if not re.fullmatch(r"\d{1,20}(-\d{1,20})?", text):
        raise BadInput(f"{text!r} is not a tick id: write milliseconds or milliseconds-number, as in 1767225600000-0")
    return text.encode()
