"""Write the table of transforms into docs/transforms.md of the working directory."""

from __future__ import annotations

import sys
from pathlib import Path

from sincere_spec.conformance.transforms import rewritten

try:
    page = Path("docs/transforms.md")
    page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
except (OSError, ValueError) as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(2)
