"""The files of a report: each is whole or not there at all, whatever happens to the run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from sincere_spec.conformance.page import html
from sincere_spec.conformance.report import Report, badge, junit, markdown, to_json

__all__ = ["FILES", "check_writable", "publish", "save"]

FILES = ("report.json", "report.html", "report.md", "report.xml", "badge.json")


def check_writable(folder: Path, names: Iterable[str]) -> None:
    """Raise OSError where files of these names cannot be written into a folder, which need not be there; leaves nothing."""
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"{folder / name} is a folder; name another place for the report.")
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is no folder; name another place for the report.")
    with tempfile.TemporaryDirectory(prefix=".sincere-spec-", dir=there):
        pass


def save(made: Report, folder: Path) -> tuple[Path, ...]:
    """Write report.json, and as views of it report.html, report.md, for CI systems report.xml, and badge.json."""
    views = (to_json, html, markdown, junit, badge)
    return publish({name: write(made) for name, write in zip(FILES, views, strict=True)}, folder)


def publish(texts: Mapping[str, str], folder: Path) -> tuple[Path, ...]:
    """Write texts to files of these names; each is whole or not there at all."""
    folder.mkdir(parents=True, exist_ok=True)
    drafts: dict[Path, Path] = {}
    try:
        for name, text in texts.items():
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=folder, prefix=f".{name}.", delete=False
            ) as draft:
                drafts[folder / name] = Path(draft.name)
                draft.write(text)
        for path, whole in drafts.items():
            whole.chmod(0o644)
            whole.replace(path)
    finally:
        for whole in drafts.values():
            with suppress(FileNotFoundError):
                whole.unlink()
    return tuple(drafts)
