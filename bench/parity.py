"""How far this core and TRL are apart, loss by loss: the comparison of `tests/parity`, as a table.

Per loss: the difference of the loss and the relative difference of its gradient at three steps, from equal weights; the
largest difference of a metric that both sides log; then, both sides running free for as many steps, the largest difference of the loss and that of the final weights,
relative to how far they moved.

    python bench/parity.py
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

from report import write_report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    from trl_oracle import CASES, COMPARED_STEPS, LEARNING_RATE, compare

    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(case, Path(folder))
        rows.append(
            {"loss": case.name}
            | {f"value_{step}": found.loss[step] for step in COMPARED_STEPS}
            | {f"loss_gap_{step}": found.loss_gap[step] for step in COMPARED_STEPS}
            | {f"gradient_gap_{step}": found.gradient_gap[step] for step in COMPARED_STEPS}
            | {"metric_gap": max(found.metric_gap.values(), default=None)}
            | {"drift_loss": found.drift_loss, "drift_weights": found.drift_weights}
        )
    write_report("parity", rows, trl=version("trl"), learning_rate=LEARNING_RATE)


if __name__ == "__main__":
    main()
