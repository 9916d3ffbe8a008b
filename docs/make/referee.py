"""What the referee is worth: `python docs/make/referee.py` writes docs/data/referee.json, and the tables of docs/verifier.md.

Every fault that `tests/test_faults.py` plants is judged by every case of the suite, and so is the plain implementation
without one, which is right; and a one-logit loss is held to the oracle's digits at every bfloat16 number. PyTorch runs here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mpmath

ROOT = Path(__file__).parents[2]
DATA, PAGE = ROOT / "docs" / "data" / "referee.json", ROOT / "docs" / "verifier.md"
BEGIN, END = "<!-- referee:begin -->", "<!-- referee:end -->"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def judged() -> dict[str, Any]:
    """The faults by level, the cases, and the false alarms."""
    from plain import Plain
    from test_faults import FAULTS

    from sincere_spec.conformance import judge, questions
    from sincere_spec.conformance.report import at_level

    suite = questions.of_suite()
    levels = {
        level: [question for question in suite if question.profile in profiles]
        for level, profiles in questions.LEVELS.items()
    }

    def alarms(
        implementation: Plain, asked: Sequence[questions.Question], dtype: str, by_level: bool
    ) -> Iterator[bool]:
        for question in asked:
            if dtype in question.dtypes:
                for result in judge.ask(implementation, question, dtype, "dense"):
                    yield (at_level(result) if by_level else result).status in ("fail", "error")

    killed: dict[str, list[str]] = {"core": [], "core and robust": [], "all": []}
    for name, fault in FAULTS.items():
        core, robust, extreme = (alarms(fault.implementation, asked, fault.dtype, True) for asked in levels.values())
        entry_by_entry = alarms(fault.implementation, levels["core"], fault.dtype, False)
        if any(core):
            levels_of_fault = killed.keys()
        elif any(robust):
            levels_of_fault = killed.keys() - {"core"}
        else:
            levels_of_fault = {"all"} if any(extreme) or any(entry_by_entry) else set()
        for level in levels_of_fault:
            killed[level].append(name)
    right = Plain("torch")
    verdicts = {}
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        found = list(alarms(right, suite, dtype, False))
        verdicts[dtype] = {"verdicts": len(found), "false_alarms": sum(found)}
    return {
        "cases": len(suite),
        "faults": {
            "planted": len(FAULTS),
            "killed": {level: len(names) for level, names in killed.items()},
            "spared": sorted(set(FAULTS) - set(killed["all"])),
        },
        "right": verdicts,
    }


def one_logit() -> dict[str, Any]:
    """softplus(x) and its slope at every finite bfloat16 number x, as InfoNCE with one negative has them."""
    import torch

    import sincere_spec as ss

    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = bits[torch.isfinite(bits)][:, None].clone().requires_grad_()
    zero, one = torch.zeros_like(x), torch.ones((1, 1), dtype=torch.bfloat16)
    value = ss.info_nce_loss(x, zero, one, temperature=1.0, normalize=False, reduction="none")
    (gradient,) = torch.autograd.grad(value.sum(), x)
    inputs = x.detach().double().numpy()[:, 0].tolist()
    with mpmath.workdps(80):
        wanted = [mpmath.log1p(mpmath.exp(number)) for number in inputs]
        slopes = [1 / (1 + mpmath.exp(-number)) for number in inputs]
        values = _steps(value.detach().double().numpy().tolist(), wanted, 24, -126)
        gradients = _steps(gradient.double().numpy()[:, 0].tolist(), slopes, 8, -126)
    rest = bits[~torch.isfinite(bits)][:, None]
    other = ss.info_nce_loss(rest, torch.zeros_like(rest), one, temperature=1.0, normalize=False, reduction="none")
    return {
        "inputs": 2**16,
        "finite": len(inputs),
        "value_steps": values,
        "gradient_steps": gradients,
        "not_finite": int(torch.isnan(other).sum()),
    }


def _steps(got: list[float], want: list[Any], digits: int, smallest: int) -> float:
    """The largest error in steps of the type, of `digits` binary digits, at the wanted number."""
    worst = mpmath.mpf(0)
    for came, right in zip(got, want, strict=True):
        exponent = max(mpmath.frexp(right)[1] - 1, smallest) if right else smallest
        worst = max(worst, abs(mpmath.mpf(came) - right) / mpmath.ldexp(1, exponent - digits + 1))
    return round(float(worst), 3)


def rendered(found: dict[str, Any]) -> str:
    """The tables, as Markdown."""
    faults, bits = found["faults"], found["one_logit"]
    lines = ["| planted faults | caught |", "| --- | --: |"]
    for level, number in faults["killed"].items():
        lines.append(
            f"| by {'the whole suite' if level == 'all' else f'level {level}'} | {number} of {faults['planted']} |"
        )
    lines += ["", "| a right implementation, in PyTorch | verdicts | false alarms |", "| --- | --: | --: |"]
    lines += [f"| {dtype} | {row['verdicts']} | {row['false_alarms']} |" for dtype, row in found["right"].items()]
    lines += ["", "| one logit, at all 65536 bfloat16 numbers | largest error |", "| --- | --: |"]
    lines += [f"| the value, in steps of float32 | {bits['value_steps']:g} |"]
    lines += [f"| the gradient, in steps of bfloat16 | {bits['gradient_steps']:g} |"]
    lines += [f"| infinities and NaN that give NaN | {bits['not_finite']} of {bits['inputs'] - bits['finite']} |"]
    return "\n".join(lines)


def rewritten(page: str, found: dict[str, Any]) -> str:
    """The page with the tables between its markers."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{rendered(found)}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    found = judged() | {"one_logit": one_logit()}
    DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
