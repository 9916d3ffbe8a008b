"""Every link inside a built site leads to a page, and to a place in it: `python docs/make/links.py docs/_build/html`."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The links of a page, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.places |= {place for place in (given.get("id"), given.get("name") if tag == "a" else None) if place}
        link = given.get("href" if tag in ("a", "link") else "src")
        if link:
            self.links.append(link)


def dead(folder: Path) -> list[str]:
    """Each dead link, with the page that it is on; links to other sites are not followed, but must be https."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                right = parts.scheme in ("https", "mailto", "data")
            else:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                right = target.is_file() and (
                    not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].places
                )
            if not right:
                found.append(f"{path.relative_to(folder)}: {link}")
    return found


if __name__ == "__main__":
    wrong = dead(Path(sys.argv[1]).resolve())
    sys.exit("\n".join(["dead links:", *wrong]) if wrong else 0)
