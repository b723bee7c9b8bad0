"""Jobs to Snakemake: which, in which order, how many at a time. What a job does is the caller's ``execute``."""
