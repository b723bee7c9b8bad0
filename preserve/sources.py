"""The analysis' code: git commit, tree and dirtiness."""
