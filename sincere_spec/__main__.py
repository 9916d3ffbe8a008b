"""The command `sincere-spec`: what needs no other package here, and all the rest in `cli`, with the extra `verify`."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from sincere_spec import __version__, catalogue
from sincere_spec.errors import SincereSpecError

NEEDS = ("typer", "rich", "numpy", "jinja2")  # what `verify` and the better help are made with
BESIDE = {
    "verify": "the conformance suite",
    "measure": "measures of embeddings in files",
    "study": "the papers' claims on real images",
}


def main() -> int:
    """The exit status."""
    if all(importlib.util.find_spec(name) for name in NEEDS):
        from sincere_spec import cli

        cli.main()
    return base(sys.argv[1:])


def base(words: list[str]) -> int:
    """The command without the extra: `losses`, `--version` and help; its exit status."""
    parser = argparse.ArgumentParser(
        prog="sincere-spec",
        description="Contrastive losses, defined once for every framework, and the suite that holds every framework to it.",
        epilog=f"{', '.join(BESIDE)} need other packages: pip install 'sincere-spec[verify]'",
    )
    parser.add_argument("--version", action="version", version=f"sincere-spec {__version__}")
    commands = parser.add_subparsers(dest="command", metavar=f"{{losses,{','.join(BESIDE)}}}", required=True)
    shown = commands.add_parser("losses", help="every loss, or those named, with formulas and stages")
    shown.add_argument("name", nargs="*", help="a loss, such as sincere")
    shown.add_argument("--json", action="store_true", help="as JSON")
    for name, what in BESIDE.items():
        commands.add_parser(name, help=what, add_help=False)
    asked, rest = parser.parse_known_args(words or ["--help"])
    if asked.command in BESIDE:
        sys.stderr.write(
            f"sincere-spec {asked.command}: it needs other packages; try: pip install 'sincere-spec[verify]'\n"
        )
        return 2
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        found = catalogue.entries(asked.name)
    except SincereSpecError as error:
        sys.stderr.write(f"sincere-spec losses: {error}\n")
        return 2
    sys.stdout.write(catalogue.as_json(found) if asked.json else catalogue.shown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
