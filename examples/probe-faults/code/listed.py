"""Planted fault: files in the order in which the file system lists them, and the first one gives the calibration."""

import json
import sys
from pathlib import Path

names = [path.name for path in Path("parts").iterdir()]
numbers = [[float(line) for line in Path("parts", name).read_text().splitlines()[1:]] for name in names]
scale = numbers[0][0]
total = sum(number / scale for part in numbers for number in part)
Path(sys.argv[1]).write_text(json.dumps({"first": names[0], "energy": total}))
