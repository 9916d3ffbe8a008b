"""`python -m sincere_spec.conformance`: the same as `sincere-spec verify`."""

from __future__ import annotations

from sincere_spec.cli import verify_alone

if __name__ == "__main__":
    verify_alone()
