"""Compare two files: readers make leaves of them, leaves are compared, and a policy makes verdicts of the facts."""
