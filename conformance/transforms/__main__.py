"""Write the table of transforms into the README of the working directory."""

from __future__ import annotations

import sys
from pathlib import Path

from sincere_spec.conformance.transforms import rewritten

try:
    readme = Path("README.md")
    readme.write_text(rewritten(readme.read_text(encoding="utf-8")), encoding="utf-8")
except (OSError, ValueError) as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(2)
