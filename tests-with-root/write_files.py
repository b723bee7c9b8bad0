"""Write files with ROOT itself: one as it is, one for each change, and verdicts.json, the verdict that each must get.

Usage: python write_files.py FOLDER     (with a Python that has ROOT; .ci/test-with-root does it)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ROOT

EQUIVALENT, DIFFERENT = "equivalent", "different"
Content = dict[str, Any]

BASE: Content = {
    "weight": 1.25,
    "error": None,
    "title": "Dimuon mass",
    "axis": "m [GeV]",
    "edges": [0.0, 1.0, 3.0, 7.0],
    "label": "mumu",
    "cell": 3.0,
    "profile": 2.0,
    "point": 6.0,
    "asymmetric": 0.2,
    "passed": True,
    "parameter": 3.14,
    "vector": 3.0,
    "matrix": 0.5,
    "formula": "[0]*x+gaus(1)",
    "slope": 1.0,
    "note": "all of run A",
    "list": "an element",
    "map": "value",
    "canvas": 2,
    "stdmap": 1.5,
    "x": 7.0,
    "fixed": 7.0,
    "jagged": 7.0,
    "nested": 7,
    "string": "event 7",
    "vector4": 7.0,
    "alias": "x*2",
    "information": "made for the test",
    "ntuple": 7.0,
    "entries": 50,
    "name": "mass",
    "more": False,
    "less": False,
    "compression": 101,
    "basket": 32000,
    "autosave": 0,
    "twice": False,
}


def changed(**changes: Any) -> Content:
    return {name: changes.pop(name, value) for name, value in BASE.items()} | {name: BASE[name] for name in changes}


CHANGES: dict[str, tuple[Content, str]] = {
    "again": (BASE, EQUIVALENT),
    "compression": (changed(compression=207), EQUIVALENT),
    "size of baskets": (changed(basket=1000), EQUIVALENT),
    "tree saved in between": (changed(autosave=20), EQUIVALENT),
    "an object written twice": (changed(twice=True), DIFFERENT),  # the older cycle is there to be read
    "a bin": (changed(weight=1.2500001), DIFFERENT),
    "an error": (changed(error=9.0), DIFFERENT),
    "a title": (changed(title="Dielectron mass"), DIFFERENT),
    "an axis' title": (changed(axis="m [MeV]"), DIFFERENT),
    "an edge": (changed(edges=[0.0, 1.0, 3.5, 7.0]), DIFFERENT),
    "a label": (changed(label="ee"), DIFFERENT),
    "a cell": (changed(cell=3.5), DIFFERENT),
    "a profile": (changed(profile=2.5), DIFFERENT),
    "a point": (changed(point=6.5), DIFFERENT),
    "an asymmetric error": (changed(asymmetric=0.3), DIFFERENT),
    "an efficiency": (changed(passed=False), DIFFERENT),
    "a parameter": (changed(parameter=3.15), DIFFERENT),
    "a vector": (changed(vector=3.5), DIFFERENT),
    "a matrix": (changed(matrix=0.25), DIFFERENT),
    "a formula": (changed(formula="[0]*x+landau(1)"), DIFFERENT),
    "a slope": (changed(slope=1.5), DIFFERENT),
    "a note": (changed(note="all of run B"), DIFFERENT),
    "an element of a list": (changed(list="another"), DIFFERENT),
    "a value of a map": (changed(map="another"), DIFFERENT),
    "a canvas": (changed(canvas=3), DIFFERENT),
    "a map of numbers": (changed(stdmap=2.5), DIFFERENT),
    "an entry": (changed(x=7.0000001), DIFFERENT),
    "an entry of an array": (changed(fixed=7.5), DIFFERENT),
    "an entry of a list": (changed(jagged=7.5), DIFFERENT),
    "an entry of a list of lists": (changed(nested=8), DIFFERENT),
    "a string": (changed(string="event 8"), DIFFERENT),
    "a vector of four": (changed(vector4=7.5), DIFFERENT),
    "an alias": (changed(alias="x*3"), DIFFERENT),
    "the user's information": (changed(information="changed for the test"), DIFFERENT),
    "an entry of an RNTuple": (changed(ntuple=7.5), DIFFERENT),
    "an entry less": (changed(entries=49), DIFFERENT),
    "a renamed key": (changed(name="mass2"), DIFFERENT),
    "an object more": (changed(more=True), DIFFERENT),
    "an object less": (changed(less=True), DIFFERENT),
}


KEPT: list[Any] = []


def keep(made: Any) -> Any:
    """Leave an object to ROOT: two owners end in a crash."""
    ROOT.SetOwnership(made, False)
    KEPT.append(made)
    return made


def histograms(c: Content) -> None:
    h = keep(ROOT.TH1D(c["name"], f"{c['title']};{c['axis']};events", 10, 0, 10))
    h.Sumw2()
    for place in range(100):
        h.Fill(place % 12, c["weight"] if place == 7 else 1.0)
    if c["error"] is not None:
        h.SetBinError(3, c["error"])
    h.Write()
    if c["twice"]:
        h.Fill(5)
        h.Write()
    ROOT.gDirectory.mkdir("dir").cd()
    h.Write("in another directory")
    ROOT.gDirectory.cd("/")
    variable = keep(ROOT.TH1F("variable", "variable", 3, array("d", c["edges"])))
    variable.Fill(2)
    variable.Write()
    labels = keep(ROOT.TH1F("labels", "labels", 3, 0, 3))
    for label in (c["label"], "tautau"):
        labels.Fill(label, 1)
    labels.Write()
    plane = keep(ROOT.TH2F("plane", "plane", 3, 0, 3, 4, 0, 4))
    plane.Fill(1, 2, c["cell"])
    plane.Write()
    space = keep(ROOT.TH3I("space", "space", 2, 0, 2, 2, 0, 2, 2, 0, 2))
    space.Fill(1, 1, 1)
    space.Write()
    profile = keep(ROOT.TProfile("profile", "profile", 5, 0, 5))
    profile.Fill(1, c["profile"])
    profile.Fill(1, 3)
    profile.Write()
    efficiency = keep(ROOT.TEfficiency("efficiency", "efficiency", 4, 0, 4))
    efficiency.Fill(c["passed"], 1)
    efficiency.Write()
    fitted = keep(ROOT.TH1D("fitted", "fitted", 10, -3, 3))
    function = keep(ROOT.TF1("function", "gaus", -1, 1))
    function.SetParameters(c["slope"], 2, 3)
    fitted.GetListOfFunctions().Add(function)
    fitted.Write()


def graphs(c: Content) -> None:
    graph = keep(ROOT.TGraph(3, array("d", [1, 2, 3]), array("d", [2, 4, c["point"]])))
    graph.Write("graph")
    doubles = [
        array("d", values) for values in ([1, 2], [2, 4], [0.1, 0.1], [0.1, 0.1], [c["asymmetric"], 0.1], [0.1, 0.1])
    ]
    keep(ROOT.TGraphAsymmErrors(2, *doubles)).Write("asymmetric")
    canvas = keep(ROOT.TCanvas("canvas", "canvas"))
    graph.SetLineColor(c["canvas"])
    graph.Draw()
    canvas.Write()


def objects(c: Content) -> None:
    if not c["less"]:
        keep(ROOT.TNamed("note", c["note"])).Write()
    if c["more"]:
        keep(ROOT.TNamed("more", "more")).Write()
    keep(ROOT.TObjString("a string")).Write("string")
    ROOT.TParameter("double")("parameter", c["parameter"]).Write()
    keep(ROOT.TVectorD(3, array("d", [1, 2, c["vector"]]))).Write("vector")
    matrix = keep(ROOT.TMatrixDSym(2))
    matrix[0][0], matrix[1][1] = 1, c["matrix"]
    matrix.Write("matrix")
    function = keep(ROOT.TF1("formula", c["formula"], 0, 10))
    function.SetParameters(1, 2, 3, 4)
    function.Write()
    element, key, value = (keep(ROOT.TObjString(word)) for word in (c["list"], "key", c["map"]))
    elements = keep(ROOT.TList())
    elements.Add(element)
    elements.Write("list", 1)
    mapped = keep(ROOT.TMap())
    mapped.Add(key, value)
    mapped.Write("map", 1)


def tree(c: Content) -> None:
    made = keep(ROOT.TTree("tree", "events"))
    x, n, fixed, jagged = array("d", [0]), array("i", [0]), array("f", [0] * 3), array("f", [0] * 10)
    lists, nested = ROOT.std.vector("float")(), ROOT.std.vector("vector<int>")()
    string, vector4 = ROOT.std.string(), ROOT.TLorentzVector()
    leaves = (("x", x, "x/D"), ("n", n, "n/I"), ("fixed", fixed, "fixed[3]/F"), ("jagged", jagged, "jagged[n]/F"))
    for name, place, leaf in leaves:
        made.Branch(name, place, leaf, c["basket"])
    for name, place in (("lists", lists), ("nested", nested), ("string", string), ("p4", vector4)):
        made.Branch(name, place, c["basket"])
    for entry in range(c["entries"]):
        special = entry == 7
        x[0] = c["x"] if special else entry
        fixed[1] = c["fixed"] if special else entry
        n[0] = entry % 4
        for place in range(n[0]):
            jagged[place] = c["jagged"] if special else place + entry
        lists.clear()
        lists.push_back(c["jagged"] if special else entry)
        nested.clear()
        nested.push_back(ROOT.std.vector("int")([entry, c["nested"] if special else entry]))
        string.assign(c["string"] if special else f"event {entry}")
        vector4.SetPxPyPzE(c["vector4"] if special else entry, 1, 2, 100)
        made.Fill()
        if c["autosave"] and entry == c["autosave"]:
            made.AutoSave("FlushBaskets")
    made.SetAlias("double_x", c["alias"])
    information = keep(ROOT.TObjString(c["information"]))
    made.GetUserInfo().Add(information)
    made.Write()


def ntuple(file: Any, c: Content) -> None:
    model = ROOT.RNTupleModel.Create()
    model.MakeField["float"]("px")
    model.MakeField["std::vector<int>"]("ids")
    model.MakeField["std::string"]("name")
    writer = ROOT.RNTupleWriter.Append(model, "ntuple", file)
    entry = writer.CreateEntry()
    for place in range(20):
        entry["px"] = c["ntuple"] if place == 7 else float(place)
        entry["ids"] = [place] * (place % 3)
        entry["name"] = f"entry {place}"
        writer.Fill(entry)
    del entry, writer


def write(path: Path, c: Content) -> None:
    """Write one file."""
    file = ROOT.TFile(str(path), "RECREATE", "", c["compression"])
    steps: tuple[Callable[[Content], None], ...] = (histograms, graphs, objects, tree)
    for step in steps:
        file.cd()
        step(c)
    values = ROOT.std.map("string", "double")()
    values["a"] = c["stdmap"]
    file.WriteObject(values, "stdmap")
    ntuple(file, c)
    file.Close()


def main() -> None:
    """Write all files, each by a process of its own, as steps of an analysis are.

    The first is a second older than the others: times in ROOT files have whole seconds.
    """
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    for name in ("base", *CHANGES):
        subprocess.run([sys.executable, "-W", "ignore", __file__, str(folder), name], check=True)
        if name == "base":
            time.sleep(1.1)
    verdicts = {name: verdict for name, (_, verdict) in CHANGES.items()}
    (folder / "verdicts.json").write_text(json.dumps({"verdicts": verdicts}, indent=1))


def write_one(folder: Path, name: str) -> None:
    """Write one of the files."""
    ROOT.gROOT.SetBatch(True)
    ROOT.gErrorIgnoreLevel = ROOT.kError
    ROOT.TH1.AddDirectory(False)
    write(folder / f"{name}.root", BASE if name == "base" else CHANGES[name][0])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        write_one(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
