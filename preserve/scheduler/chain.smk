# One rule per job of the run, read from a JSON list of {"after": [numbers], "cpus": n}; the file is the same for every run.
# A job's output is an empty receipt in a folder made for this run, so that a missing receipt is the only reason to run it.
# (A rule made in a loop must not take its shell text from the loop: it would be evaluated again at run time.)
import json

with open(config["jobs"]) as stream:
    JOBS = json.load(stream)


for number, job in enumerate(JOBS):

    rule:
        name:
            f"job_{number}"
        input:
            [f"receipts/{earlier}" for earlier in job["after"]],
        output:
            f"receipts/{number}",
        params:
            number=number,
        threads: job["cpus"]
        shell:
            "echo 'only the executor of preserve runs this' >&2; exit 70"
