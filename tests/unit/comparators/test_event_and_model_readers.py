"""YODA, pyhf, HepMC and Les Houches files: what is changed in them, and the verdict that it must get."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyhf
import pytest
from pairs import judged, leaves, loosened

from preserve.comparators.leaves import Limits

EQUIVALENT, DIFFERENT, IDENTICAL, UNCOMPARABLE = "equivalent", "different", "identical", "uncomparable"

YODA = """\
BEGIN YODA_HISTO1D_V2 /ANALYSIS/d01-x01-y01
Path: /ANALYSIS/d01-x01-y01
Title: Z mass
Type: Histo1D
XLabel: m [GeV]
---
# Mean: 9.100000e+01
# Area: 1.000000e+00
# ID	 ID	 sumw	 sumw2	 sumwx	 sumwx2	 numEntries
Total   	Total   	5.000000e+00	6.000000e+00	4.550000e+02	4.140000e+04	5
Underflow	Underflow	0.000000e+00	0.000000e+00	0.000000e+00	0.000000e+00	0
Overflow	Overflow	0.000000e+00	0.000000e+00	0.000000e+00	0.000000e+00	0
# xlow	 xhigh	 sumw	 sumw2	 sumwx	 sumwx2	 numEntries
8.000000e+01	9.000000e+01	2.000000e+00	2.500000e+00	1.700000e+02	1.450000e+04	2
9.000000e+01	1.000000e+02	3.000000e+00	3.500000e+00	2.850000e+02	2.710000e+04	3
END YODA_HISTO1D_V2

BEGIN YODA_ESTIMATE1D_V3 /ANALYSIS/d02-x01-y01
Path: /ANALYSIS/d02-x01-y01
Title: ~
Type: Estimate1D
---
Edges(A1): [0.000000e+00, 1.000000e+00, 2.000000e+00]
ErrorLabels: ["stat", "syst"]
# value       	errDn(1)      	errUp(1)      	errDn(2)      	errUp(2)
nan           	---           	---           	---           	---
3.000000e+00  	-1.000000e-01 	1.000000e-01  	---           	---
4.000000e+00  	-2.000000e-01 	2.000000e-01  	-5.000000e-02 	5.000000e-02
END YODA_ESTIMATE1D_V3

BEGIN YODA_OFTHEFUTURE_V9 /ANALYSIS/new
Type: New
---
whatever it holds 1 2 3
END YODA_OFTHEFUTURE_V9
"""
YODA_CHANGES = {
    "nothing": ("", "", IDENTICAL),
    "one bin content": ("3.000000e+00	3.500000e+00", "3.000001e+00	3.500000e+00", DIFFERENT),
    "one error": ("-2.000000e-01", "-2.100000e-01", DIFFERENT),
    "an error that is not there": ("-5.000000e-02 	5.000000e-02", "---           	---", DIFFERENT),
    "a bin edge": ("9.000000e+01	1.000000e+02", "9.000000e+01	1.010000e+02", DIFFERENT),
    "an edge in a header": ("1.000000e+00, 2.0", "1.500000e+00, 2.0", DIFFERENT),
    "an entry": ("2.710000e+04	3", "2.710000e+04	4", DIFFERENT),
    "the overflow": ("Overflow	Overflow	0.0", "Overflow	Overflow	1.0", DIFFERENT),
    "a title": ("Title: Z mass", "Title: W mass", DIFFERENT),
    "an axis": ("XLabel: m [GeV]", "XLabel: m [MeV]", DIFFERENT),
    "a header less": ("XLabel: m [GeV]\n", "", DIFFERENT),
    "the name of an error": ('"syst"]', '"lumi"]', DIFFERENT),
    "a value for NaN": ("nan           ", "0.000000e+00", DIFFERENT),
    "a type": ("YODA_ESTIMATE1D_V3", "YODA_ESTIMATE1D_V4", DIFFERENT),
    "a name": ("/ANALYSIS/new", "/ANALYSIS/newer", DIFFERENT),
    "a block of a later version": ("whatever it holds 1 2 3", "whatever it holds 1 2 4", DIFFERENT),
    "words of such a block": ("whatever it holds", "whichever it holds", DIFFERENT),
    "a remark outside": ("BEGIN YODA_OF", "# remark\nBEGIN YODA_OF", DIFFERENT),
    "another spelling": ("3.000000e+00	3.500000e+00", "3.0e+00	3.50e+00", EQUIVALENT),
}


@pytest.mark.parametrize("change", YODA_CHANGES)
def test_yoda(change: str) -> None:
    old, new, verdict = YODA_CHANGES[change]
    assert old in YODA
    assert judged("r.yoda", YODA, YODA.replace(old, new) if old else YODA).verdict == verdict


def test_yoda_blocks() -> None:
    found = leaves("r.yoda", YODA)
    first, *rest = YODA.split("\n\n")
    assert judged("r.yoda", YODA, "\n\n".join([*rest, first, ""])).verdict == EQUIVALENT  # their order says nothing
    assert judged("r.yoda", YODA, "\n\n".join(rest)).verdict == DIFFERENT
    assert judged("r.yoda", YODA, YODA.replace("END YODA_OFTHEFUTURE_V9", "")).verdict == UNCOMPARABLE
    assert found["/ANALYSIS/d01-x01-y01:xlow"].load().tolist() == [80.0, 90.0]
    close = YODA.replace("3.000000e+00	3.500000e+00", "3.000001e+00	3.500000e+00")
    policy = loosened("/ANALYSIS/d01-x01-y01:sumw*", rtol=1e-6)
    assert judged("r.yoda", YODA, close, policy).verdict == "tolerated"


BACKGROUND = pyhf.simplemodels.uncorrelated_background([5.0, 10.0], [50.0, 60.0], [5.0, 12.0], validate=False)
MODEL: dict[str, Any] = dict(pyhf.Workspace.build(BACKGROUND, [55, 62], validate=False))
MODEL["channels"].append({"name": "control", "samples": [{"name": "Z", "data": [100.0], "modifiers": []}]})
MODEL["observations"].append({"name": "control", "data": [99]})
Change = Callable[[dict[str, Any]], Any]


def samples(model: dict[str, Any]) -> Any:
    return model["channels"][0]["samples"]


MODEL_CHANGES: dict[str, tuple[Change, str]] = {
    "nothing": (lambda m: None, IDENTICAL),
    "one bin": (lambda m: samples(m)[0]["data"].__setitem__(1, 10.5), DIFFERENT),
    "the order of bins": (lambda m: samples(m)[0]["data"].reverse(), DIFFERENT),
    "an uncertainty": (lambda m: samples(m)[1]["modifiers"][0]["data"].__setitem__(0, 6.0), DIFFERENT),
    "the kind of a modifier": (lambda m: samples(m)[1]["modifiers"][0].__setitem__("type", "staterror"), DIFFERENT),
    "a modifier less": (lambda m: samples(m)[0]["modifiers"].clear(), DIFFERENT),
    "a sample's name": (lambda m: samples(m)[0].__setitem__("name", "other"), DIFFERENT),
    "a sample less": (lambda m: samples(m).pop(), DIFFERENT),
    "an observation": (lambda m: m["observations"][0]["data"].__setitem__(0, 56), DIFFERENT),
    "the parameter of interest": (lambda m: m["measurements"][0]["config"].__setitem__("poi", "other"), DIFFERENT),
    "a version": (lambda m: m.__setitem__("version", "2.0.0"), DIFFERENT),
    "a word that pyhf does not know": (lambda m: m.__setitem__("remark", "one"), DIFFERENT),
    "the order of samples": (lambda m: samples(m).reverse(), EQUIVALENT),
    "the order of channels": (lambda m: m["channels"].reverse(), EQUIVALENT),
    "the order of observations": (lambda m: m["observations"].reverse(), EQUIVALENT),
    "whole numbers": (lambda m: m["observations"][0].__setitem__("data", [55.0, 62.0]), EQUIVALENT),
    "NaN": (lambda m: samples(m)[0]["data"].__setitem__(1, math.nan), DIFFERENT),
}


@pytest.mark.parametrize("change", MODEL_CHANGES)
def test_pyhf(change: str) -> None:
    mutate, verdict = MODEL_CHANGES[change]
    found = copy.deepcopy(MODEL)
    mutate(found)
    result = judged("workspace.json", json.dumps(MODEL), json.dumps(found))
    assert (result.verdict, result.reader) == (verdict, "bytes" if verdict == IDENTICAL else "pyhf")


def test_pyhf_by_name() -> None:
    found = leaves("workspace.json", json.dumps(MODEL))
    assert found["channels/singlechannel/samples/signal/data"].load().tolist() == [5.0, 10.0]
    policy = loosened("channels/*/samples/signal/data", rtol=0.1)
    other = copy.deepcopy(MODEL)
    samples(other)[0]["data"][1] = 10.5
    assert judged("workspace.json", json.dumps(MODEL), json.dumps(other), policy).verdict == "tolerated"


@pytest.mark.parametrize(
    "hostile", ['{"channels": [], "samples": ' + "[" * 100_000, '{"channels": "samples", "a": 1, "a": 2}']
)
def test_pyhf_hostile(hostile: str) -> None:
    assert judged("workspace.json", json.dumps(MODEL), hostile).passed is False


def test_pyhf_with_a_long_name_above_many_numbers() -> None:
    hostile = {"channels": [], "samples": {"n" * 3_000_000: {str(number): number for number in range(1000)}}}
    assert judged("workspace.json", json.dumps(MODEL), json.dumps(hostile)).verdict == UNCOMPARABLE


HEPMC = """\
HepMC::Version 3.02.05
HepMC::Asciiv3-START_EVENT_LISTING
W Weight
T generator\\|1.0\\|seed 7
E 0 1 3
U GEV MM
W 1.0000000000000000e+00
A 0 signal_process_id 20
P 1 0 2212 0.0000000000000000e+00 0.0000000000000000e+00 6.4999999323e+03 6.5e+03 9.3827e-01 4
V -1 0 [1] @ 1.5000000000000000e-02 0.0000000000000000e+00 0.0000000000000000e+00 0.0000000000000000e+00
P 2 -1 23 1.0000000000000000e+00 2.0000000000000000e+00 3.0000000000000000e+00 9.1187600000000003e+01 91.1876 2
E 1 0 1
P 1 0 13 1.1 2.2 3.3 4.4 0.105 1
HepMC::Asciiv3-END_EVENT_LISTING
"""
HEPMC_CHANGES = {
    "nothing": ("", "", IDENTICAL),
    "a momentum": ("2.0000000000000000e+00 3.0", "2.0000000000000004e+00 3.0", DIFFERENT),
    "a particle": ("-1 23 1.0", "-1 22 1.0", DIFFERENT),
    "a weight": ("W 1.0", "W 1.1", DIFFERENT),
    "a place": ("1.5000000000000000e-02", "1.6000000000000000e-02", DIFFERENT),
    "an attribute": ("signal_process_id", "process_id", DIFFERENT),
    "a unit": ("U GEV MM", "U MEV MM", DIFFERENT),
    "the order of lines": ("U GEV MM\nW 1.0000000000000000e+00\n", "W 1.0000000000000000e+00\nU GEV MM\n", DIFFERENT),
    "a particle less": ("P 1 0 13 1.1 2.2 3.3 4.4 0.105 1\n", "", DIFFERENT),
    "the run's information": ("seed 7", "seed 8", DIFFERENT),
    "the library's version": ("3.02.05", "3.03.00", EQUIVALENT),
    "another spelling": ("1.1 2.2 3.3", "1.10 2.20 3.30", EQUIVALENT),
    "cut short": ("HepMC::Asciiv3-END_EVENT_LISTING\n", "", UNCOMPARABLE),
}


@pytest.mark.parametrize("change", HEPMC_CHANGES)
def test_hepmc(change: str) -> None:
    old, new, verdict = HEPMC_CHANGES[change]
    assert old in HEPMC
    assert judged("events.hepmc", HEPMC, HEPMC.replace(old, new) if old else HEPMC).verdict == verdict


LHE = """\
<LesHouchesEvents version="3.0">
<header>
# generated on 2026-01-01 by a generator
cut = 10.0
</header>
<init>
2212 2212 6.5e+03 6.5e+03 0 0 247000 247000 -4 1
5.0e+01 1.0e-01 5.0e+01 1
</init>
<event>
3 1 +1.0e+00 9.1e+01 7.5e-03 1.2e-01
 2 -1 0 0 501 0 +0.0e+00 +0.0e+00 +1.0e+02 1.0e+02 0.0e+00 0.0e+00 9.0e+00
 -2 -1 0 0 0 501 0.0e+00 0.0e+00 -2.0e+01 2.0e+01 0.0e+00 0.0e+00 9.0e+00
<rwgt><wgt id='1'> 1.1e+00 </wgt></rwgt>
</event>
</LesHouchesEvents>
"""
LHE_CHANGES = {
    "nothing": ("", "", IDENTICAL),
    "a momentum": ("+1.0e+02", "+1.1e+02", DIFFERENT),
    "a cross section": ("5.0e+01 1.0e-01", "5.1e+01 1.0e-01", DIFFERENT),
    "a weight": ("1.1e+00", "1.2e+00", DIFFERENT),
    "a colour line": ("501 0 +0.0", "502 0 +0.0", DIFFERENT),
    "a setting": ("cut = 10.0", "cut = 12.0", DIFFERENT),
    "the date": ("2026-01-01", "2026-01-02", EQUIVALENT),
    "another spelling": ("+1.0e+02", "100.0", EQUIVALENT),
    "cut short": ("</LesHouchesEvents>\n", "", UNCOMPARABLE),
}


@pytest.mark.parametrize("change", LHE_CHANGES)
def test_lhe(change: str) -> None:
    old, new, verdict = LHE_CHANGES[change]
    assert old in LHE
    assert judged("events.lhe", LHE, LHE.replace(old, new) if old else LHE).verdict == verdict


@pytest.mark.parametrize(("name", "content"), [("r.yoda", YODA), ("e.hepmc", HEPMC), ("e.lhe", LHE)])
@pytest.mark.parametrize("limits", [Limits(bytes=100), Limits(leaves=2)])
def test_limits(name: str, content: str, limits: Limits) -> None:
    assert judged(name, content, content.replace("1.0", "1.2"), limits=limits).verdict == UNCOMPARABLE


def test_a_line_without_end(tmp_path: Path) -> None:
    endless = HEPMC.replace("seed 7", "seed " + "7" * (1 << 21))
    assert judged("events.hepmc", HEPMC, endless).verdict == UNCOMPARABLE
