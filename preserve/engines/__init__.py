"""Run containers: one file per engine."""
