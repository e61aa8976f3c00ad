"""What may be shown to people: foreign text must not move a cursor, colour a line or fake one."""

from __future__ import annotations


def escape(text: str) -> str:
    """``text`` with every character escaped that is no letter, mark or space of one line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
