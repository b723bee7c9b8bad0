"""Plan to Snakemake: which steps, in which order, how many at a time."""
