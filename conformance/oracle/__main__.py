"""``python -m sincere_spec.conformance.oracle``: make the suite's files, or check the ones that are there."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

from sincere_spec.conformance.oracle import digits
from sincere_spec.conformance.oracle.files import SUITE, check, check_quickly, write


def proved(suite: Path) -> str:
    """Prove the digits by balls, where python-flint is installed; what became of that."""
    if importlib.util.find_spec("flint") is None:
        return "not proved by balls, as python-flint is not installed"
    from sincere_spec.conformance.oracle import balls

    return f"{balls.prove_all(suite)} numbers proved by balls"


def main() -> int:
    """Returns the exit status: 0 where all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m sincere_spec.conformance.oracle",
        description="Make the conformance suite from the published formulas at 80 digits, or check that it is what they give.",
        epilog="example: python -m sincere_spec.conformance.oracle --check --quick",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="make all files (minutes)")
    what.add_argument(
        "--check", action="store_true", help="make them again and compare; and prove them by balls (python-flint)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="with --check: recompute the gradients of small cases only"
    )
    parser.add_argument(
        "--digits", action="store_true", help="with --check: also the answers on real data (minutes more)"
    )
    parser.add_argument("--suite", type=Path, default=SUITE, metavar="DIRECTORY", help="where the files are")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 8), metavar="N")
    chosen = parser.parse_args()
    began = time.monotonic()
    try:
        job = write if chosen.write else check_quickly if chosen.quick else check
        cases = job(chosen.suite, chosen.processes)
        besides = f"; {proved(chosen.suite)}" if chosen.check else ""
        if chosen.check and chosen.digits:
            for problem in digits.problems():
                digits.check(problem)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    verb = "written" if chosen.write else "as the oracle makes them"
    sys.stdout.write(f"{cases} cases {verb}{besides}, {time.monotonic() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
