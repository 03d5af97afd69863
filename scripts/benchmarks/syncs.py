"""How often a process has the disk take what it wrote, as strace sees it."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

UNTIL_ATTACHED = 0.5
SUMMARY = re.compile(r"^ *\S+ +\S+ +\S+ +(\d+) .*(?:fsync|fdatasync)$", re.MULTILINE)


def syncs(pid: int, work: Callable[[], object]) -> int | None:
    """How many there are during some work; None where nobody can see them."""
    strace = shutil.which("strace")
    if strace is None:
        work()
        return None
    command = [strace, "--follow-forks", "--summary-only", "--trace=fsync,fdatasync", f"--attach={pid}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracing:
        time.sleep(UNTIL_ATTACHED)
        try:
            work()
        finally:
            tracing.send_signal(signal.SIGINT)
            told = tracing.communicate()[1]
    found = SUMMARY.findall(told)
    return sum(map(int, found)) if found else None
