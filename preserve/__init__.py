"""preserve: declare, lock, run and record a containerised physics analysis."""

__version__ = "0.1.0"
