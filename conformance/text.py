"""Text of others made printable: exceptions, the words of a process, names and paths, before any of it is shown or saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["in_code", "in_markdown", "of_error", "printable", "read_json", "read_json_file", "shortened"]

LONGEST = 100_000  # characters of one text that are looked at

_MARKDOWN = {character: f"\\{character}" for character in "\\`*[]|"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: object) -> str:
    """One line that any terminal and any file can hold: blanks for white space, escapes for what cannot be seen.

    Control characters, lone surrogates, marks that change the direction of writing and what XML forbids are escaped; every
    other character stays.
    """
    return "".join(_visible(character) for character in str(text)[:LONGEST])


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


def shortened(text: str, length: int = 300) -> str:
    """A text in one line; of a long one its end, where causes stand, and its beginning."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} {text[-LONGEST // 2 :]}"
    line = " ".join(printable(text).split())
    return line if len(line) <= length else f"{line[: length // 3]} ... {line[-length * 2 // 3 :]}"


def of_error(error: BaseException) -> str:
    """The class and the message of an error in one line, also of one whose message cannot be had."""
    try:
        message = str(error)
    except Exception as second:
        message = f"(its message raises {type(second).__name__})"
    return shortened(f"{type(error).__name__}: {message}")


def in_markdown(text: object) -> str:
    """A text that Markdown shows as it is, in a paragraph or in a cell of a table."""
    return "".join(_MARKDOWN.get(character, character) for character in printable(text))


def in_code(text: object) -> str:
    """A text as code in Markdown."""
    quoted = printable(text).replace("`", "'")
    return f"`{quoted}`"


def read_json(text: str | bytes) -> Any:
    """What a JSON text says; raises ValueError for anything else, one that is nested too deeply among it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json_file(path: Path) -> Any:
    """What a file says in JSON; raises ValueError or OSError."""
    return read_json(path.read_bytes())
