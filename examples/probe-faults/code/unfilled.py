"""Planted fault: a histogram whose empty bins were never set to zero; fresh memory often is zero, but not always."""

import json
import sys
from pathlib import Path

import numpy as np

histogram = np.empty(50_000)
for position in range(0, 50_000, 7):
    histogram[position] = 1.0
Path(sys.argv[1]).write_text(json.dumps({"entries": str(histogram.sum())}))
