"""The example of docs/reference/preserve-yaml.md is one that works, and the page names every key."""

from __future__ import annotations

import re
from pathlib import Path

from preserve.documents import reading, rules, steps
from preserve.documents.planning import expand

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "preserve-yaml.md").read_text(encoding="utf-8")


def test_the_example_is_read_and_planned() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example
    workflow = reading.read_workflow(example[1].encode(), "preserve.yaml")
    jobs = expand(workflow, tracked=("code/select.py", "code/histogram.py", "code/fit.py"))
    assert [job.id for job in jobs] == ["select", "histogram@category=barrel", "histogram@category=endcap", "fit"]


def test_every_key_is_described() -> None:
    keys = (*reading.KEYS, *steps.KEYS, *steps.RESOURCE_KEYS, *rules.RESULT_KEYS, *rules.RULE_KEYS)
    assert [key for key in keys if f"`{key}" not in PAGE and f"{key}:`" not in PAGE] == []
