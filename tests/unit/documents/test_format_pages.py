"""The pages about formats are true: their examples are read by the program, and every key and name stands in them."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from preserve.digest import Digest
from preserve.documents import archive, bag, jsonform, lockfile, plan, record, workflow
from preserve.oci import CONFIG, LAYER, MANIFEST, Descriptor, Image, tables
from preserve.sources.bundle import header
from preserve.stores.zip_form import MAX_ENTRIES, Entry, central_header, local_header

DOCS = Path(__file__).parents[3] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """The page's examples of a kind (the word behind the three backticks)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for word, block in found if word == kind]


FORMAT, LOCK, PLAN, RECORD = (
    page(name) for name in ("archive-format.md", "reference/lock.md", "reference/plan.md", "reference/record.md")
)


class TestExamples:
    def test_the_lock_is_one(self) -> None:
        (text,) = blocks(LOCK, "json")
        assert lockfile.read_lock(text.encode(), "preserve.lock").to_bytes() == text.encode()

    def test_the_plan_is_one(self) -> None:
        (text,) = blocks(PLAN, "json")
        assert plan.read_plan(text.encode(), "plan.json").to_bytes() == text.encode()

    def test_the_record_is_one_and_its_key_is_that_of_its_contents(self) -> None:
        (text,) = blocks(RECORD, "json")
        found = record.read_record(text.encode(), "mean.json")
        assert found.to_bytes() == text.encode()
        steps = {step.id: step for step in plan.read_plan(blocks(PLAN, "json")[0].encode(), "plan.json").steps}
        assert found.key == record.step_key(steps[found.step], found.image.config_digest, found.materials)

    def test_the_key_as_the_page_tells_it(self) -> None:
        """Made by hand from the page, not by our own function."""
        value = json.loads(blocks(RECORD, "json")[0])
        step = next(s for s in json.loads(blocks(PLAN, "json")[0])["steps"] if s["id"] == value["step"])
        told = {name: step[name] for name in ("command", "environment", "network", "outputs")}
        told["image"] = value["image"]["config_digest"]
        told["materials"] = sorted([m["path"], m["sha256"], m["executable"]] for m in value["materials"])
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert value["key"] == Digest.of(text.encode())

    def test_they_are_of_one_run(self) -> None:
        read = plan.read_plan(blocks(PLAN, "json")[0].encode(), "plan.json")
        lock = lockfile.read_lock(blocks(LOCK, "json")[0].encode(), "preserve.lock")
        assert (read.images, read.inputs, read.source) == (lock.images, lock.inputs, lock.source)

    def test_the_tag_manifest_lists_the_seven_tag_files(self) -> None:
        (text,) = (block for block in blocks(FORMAT, "") if "CITATION.cff\n" in block and "├" not in block)
        listed, faults = bag.read_manifest(text.encode(), "page")
        assert (tuple(listed), faults) == (archive.TAG_FILES, ())

    def test_the_declaration_of_the_bag(self) -> None:
        assert bag.BAGIT_TXT.decode() in blocks(FORMAT, "")
        assert f"{len(bag.BAGIT_TXT)} bytes" in FORMAT

    def test_the_index_of_the_images(self) -> None:
        value = json.loads(blocks(FORMAT, "json")[0])
        (entry,) = value["manifests"]
        digest = Digest(entry["digest"])
        manifest = Descriptor(media_type=MANIFEST, digest=digest, size=entry["size"])
        config = Descriptor(media_type=CONFIG, digest=Digest.of(b"config"), size=6)
        layer = Descriptor(media_type=LAYER, digest=Digest.of(b"layer"), size=5)
        image = Image(
            manifest=manifest,
            config=config,
            layers=(layer,),
            diff_ids=(layer.digest,),
            platform="linux/amd64",
            settings={},
        )
        assert tables([image])["index.json"].decode() == blocks(FORMAT, "json")[0].strip()

    def test_the_headers_of_an_entry(self) -> None:
        entry = Entry(name="bagit.txt", size=len(bag.BAGIT_TXT), crc=0x85FFA873)
        assert f"local    {local_header(entry).hex(' ')}\n" in FORMAT
        assert f"central  {central_header(entry).hex(' ')}\n" in FORMAT

    def test_the_header_of_the_bundle(self) -> None:
        assert header("COMMIT").decode() in blocks(FORMAT, "")

    def test_the_escaped_name(self) -> None:
        path = "Messung für Z.txt"
        assert f"`{path}` is `{archive.archived_names([path])[path]}`" in FORMAT


class TestNothingIsLeftOut:
    @pytest.mark.parametrize(
        ("text", "kinds"),
        [
            (LOCK, (lockfile.Lock, lockfile.ImagePin, lockfile.InputPin, lockfile.SourcePin, lockfile.PackagePin)),
            (PLAN, (plan.Plan, plan.PlannedStep, plan.PlannedInput, workflow.Resources, workflow.Author)),
            (RECORD, (record.Record, record.Artifact, record.EngineUsed, record.Machine, record.ImageUsed)),
        ],
        ids=["lock", "plan", "record"],
    )
    def test_every_key_is_described(self, text: str, kinds: tuple[type, ...]) -> None:
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        keys = {field.name for kind in kinds for field in fields(kind)}
        assert sorted(key for key in keys if f"`{key}`" not in prose) == []

    @pytest.mark.parametrize(
        ("text", "schema"), [(LOCK, lockfile.SCHEMA), (PLAN, plan.SCHEMA), (RECORD, record.SCHEMA)]
    )
    def test_the_schemas(self, text: str, schema: str) -> None:
        assert f"| `schema` | `{schema}` |" in text

    def test_every_label_of_the_bag_in_its_order(self) -> None:
        assert tuple(re.findall(r"^\| `([A-Z][A-Za-z-]+)` \|", FORMAT, re.MULTILINE)) == bag.LABELS

    def test_every_name_of_the_tree(self) -> None:
        tree = next(block for block in blocks(FORMAT, "") if "├" in block)
        names = (archive.WORKFLOW, archive.LOCK, archive.PLAN, archive.REPLAY, archive.BUNDLE, archive.PATCH)
        names += (archive.RECORDS, archive.OCI, archive.TAG_MANIFEST, archive.SIGNATURES, *archive.TAG_FILES)
        assert [name for name in names if name.removeprefix(archive.DATA) not in tree] == []

    def test_the_order_of_the_tag_files(self) -> None:
        told = FORMAT[FORMAT.index("**Order of the entries.**") :].partition("**Local header**")[0]
        places = [told.index(f"`{name}`") for name in (*archive.TAG_FILES, archive.TAG_MANIFEST)]
        assert places == sorted(places)

    def test_numbers(self) -> None:
        assert f"{MAX_ENTRIES:,}" in FORMAT
        assert f"at most {archive.MAX_NAME} bytes" in FORMAT
        assert archive.FORMAT in FORMAT

    def test_what_may_be_left_out(self) -> None:
        assert all(f"| `{kind}` |" in FORMAT for kind in archive.LEAVABLE)

    def test_the_links_lead_somewhere(self) -> None:
        for name in ("archive-format.md", "reference/lock.md", "reference/plan.md", "reference/record.md"):
            for target in re.findall(r"\]\(([^)#]+)", page(name)):
                assert ((DOCS / name).parent / target).is_file(), (name, target)


def test_the_form_of_json_that_the_pages_tell() -> None:
    data = jsonform.dump({"b": "ü", "a": [1]})
    assert data == '{\n  "a": [\n    1\n  ],\n  "b": "ü"\n}\n'.encode()
    assert all("keys sorted, two spaces a level, a line feed at the end" in text for text in (LOCK, PLAN, RECORD))
