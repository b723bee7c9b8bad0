"""What the records of an archive may say; whole archives that contradict themselves are in tests/hostile."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small_archive

from preserve.documents.archive import record_name
from preserve.documents.consistency import contradictions
from preserve.documents.record import step_key

GOOD = "2024-02-29T23:59:59.000001Z"


def complaints(**times: str) -> list[str]:
    """What is wrong with an archive of one step whose record has these times."""
    results = {"selected/events.txt": '{"require":"identical"}'}
    contents = small_archive.contents(changes={"steps": small_archive.STEPS[:1], "sources": {}, "results": results})
    [step] = contents.plan.steps
    record = contents.records[step.id]
    key = step_key(step, record.image.config_digest, record.materials)
    found = contradictions(replace(contents, records={step.id: replace(record, key=key, **times)}))
    return [str(finding) for finding in found]


@pytest.mark.parametrize("which", ["started", "ended"])
@pytest.mark.parametrize(
    "time",
    [
        "2026-99-99T09:00:00.000000Z",
        "2026-02-29T09:00:00.000000Z",
        "2026-11-23T24:00:00.000000Z",
        "2026-11-23T09:00:60.000000Z",
        "0000-11-23T09:00:00.000000Z",
        "2026-11-23T09:00:00.000000+00:00",
        "2026-11-23T09:00:00.000Z",
        "2026-11-23T09:00:00Z",
        "2026-11-23 09:00:00.000000Z",
        "2026-1-23T09:00:00.000000Z",
        "\u0662026-11-23T09:00:00.000000Z",
        " 2026-11-23T09:00:00.000000Z",
        "2026-11-23T09:00:00.000000Z\n",
        "yesterday",
        "",
    ],
)
def test_a_time_that_is_none(which: str, time: str) -> None:
    assert complaints(**{which: time}) == [
        f"{record_name('select')}: its times are no times in the form of UTC that records have"
    ]


def test_a_day_that_not_every_year_has() -> None:
    assert complaints(started=GOOD, ended=GOOD) == []
