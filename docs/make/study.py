"""Writes docs/study.md and its figures from the recorded run, docs/study/study.json; `--take FOLDER` records another first.

python docs/make/study.py --take study-report
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sincere_spec.study import plots, report
from sincere_spec.study.run import judge
from sincere_spec.study.settings import Settings

DOCS = Path(__file__).parents[1]
RECORDED = DOCS / "study" / "study.json"
HEAD = """# The study

`sincere-spec study` trains small encoders on real images, measures them by `ss.metrics`, and says of each claim of the papers
whether it is seen. It takes about eight minutes of one core (`--quick` half a minute, on digits), and writes a page like this
one with all numbers as JSON. A claim that is not seen stays in the table, and says what it would need.

```
pip install 'sincere-spec[study]'
sincere-spec study --framework all
sincere-spec study --data path/to/cifar-10-batches-py --images 50000 --epochs 20   # the paper's own images, a longer training
```

What follows is one recorded run, whose numbers are [study.json](study/study.json). At this scale, a perceptron of four layers on
8192 images for 256 steps, it says what the losses do to embeddings; it does not say which loss wins on ImageNet.

"""


def page(study: dict[str, Any]) -> str:
    """The page: this head, and the report of the run under it."""
    figures = {name: shows for name, (shows, _, _) in plots.render(study).items()}
    text = report.markdown(study, figures, "study/")
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    return HEAD + "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def judged(study: dict[str, Any]) -> dict[str, Any]:
    """The study with its claims judged again, by the rules as they are now."""
    judge(study, Settings(parts=tuple(study["settings"]["parts"])))
    return study


def main() -> None:
    """Write the page and the figures."""
    RECORDED.parent.mkdir(exist_ok=True)
    folder = Path(sys.argv[2]) if sys.argv[1:2] == ["--take"] else RECORDED.parent
    study = judged(json.loads((folder / "study.json").read_text(encoding="utf-8")))
    RECORDED.write_text(report.to_json(study), encoding="utf-8")
    for name, (_, _, figure) in plots.render(study).items():
        (RECORDED.parent / f"{name}.svg").write_bytes(plots.encoded(figure, "svg"))
    (DOCS / "study.md").write_text(page(study), encoding="utf-8")


if __name__ == "__main__":
    main()
