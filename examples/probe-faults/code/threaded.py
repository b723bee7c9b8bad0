"""Planted fault: the rounding of a long sum hangs on how many threads BLAS shares it out among."""

import json
import sys
from pathlib import Path

import numpy as np

weights = [np.sin(np.arange(1, 400_001, dtype=np.float64) + shift) / 7 for shift in range(8)]
Path(sys.argv[1]).write_text(json.dumps({"chi2": [float(weight @ weight) for weight in weights]}))
