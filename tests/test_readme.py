"""The README's Python examples run as they stand, with smaller budgets."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = [example for example in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "rl_zoo3" not in example]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.strip().splitlines()[-1])
def test_example(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    budget = re.compile(r"\.learn\([\d_]+")
    assert budget.search(example)
    exec(budget.sub(".learn(1_000", example), {"__name__": "__main__"})


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
