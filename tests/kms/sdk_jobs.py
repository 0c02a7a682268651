"""Run jobs with the official SDK, each in a process of its own that has the SDK loaded already.

    sdk_jobs.py CLIENT

CLIENT is a file beside this one whose `fetch` runs a job. Reads a JSON object from each line of standard input, writes
one to a line of standard output. To load the SDK takes most of the time of a job, so it is loaded once.

Runs in the environment where the SDK is installed as its makers pin it, and so uses nothing of this package.
"""

from __future__ import annotations

import json
import os
import runpy
import sys


def main() -> None:
    """Run a job for each line; no job sees what another has left in memory."""
    fetch = runpy.run_path(sys.argv[1])["fetch"]
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            print(json.dumps(fetch(json.loads(line))), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            sys.exit(f"the job ended with status {status}")


if __name__ == "__main__":
    main()
