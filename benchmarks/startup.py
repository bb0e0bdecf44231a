"""How long align-dsl takes to start, in CPU time, against what `import pydantic` alone takes.

    python benchmarks/startup.py [RUNS]

CPU time (user + system, of the child process only) is what a busy machine does not blur. The
targets are in docs/architecture.md: 3 times for `--help`, 5 times for `check`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = [sys.executable, "-c", "from align_dsl.commands import main; main()"]
YARDSTICK = [sys.executable, "-c", "import pydantic"]
MEASURED = {
    "align-dsl --help": ([*START, "--help"], 3.0),
    "align-dsl check programs/mta.yaml": ([*START, "check", "programs/mta.yaml"], 5.0),
}


def cpu_seconds(command: list[str], bytecode: str) -> float:
    """With bytecode kept, as where align-dsl is installed, whatever this shell has set."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = bytecode
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(command, cwd=ROOT, env=env, stdout=quiet, stderr=quiet)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {child.returncode}")
    return used.ru_utime + used.ru_stime


def medians(runs: int) -> dict[str, float]:
    """Each command `runs` times, in turn, so that a slow minute hits all of them alike."""
    commands = {"import pydantic": YARDSTICK, **{n: c for n, (c, _) in MEASURED.items()}}
    seen: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as bytecode:
        for command in commands.values():  # once unmeasured: bytecode and file caches
            cpu_seconds(command, bytecode)
        for _ in range(runs):
            for name, command in commands.items():
                seen[name].append(cpu_seconds(command, bytecode))
    return {name: statistics.median(values) for name, values in seen.items()}


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    found = medians(runs)
    unit = found["import pydantic"]
    print(f"median CPU time of {runs} runs, Python {sys.version.split()[0]}\n")
    print(f"{'command':36}{'ms':>6}{'ratio':>8}{'target':>8}")
    for name, seconds in found.items():
        target = f"{MEASURED[name][1]:.1f}" if name in MEASURED else "-"
        print(f"{name:36}{1000 * seconds:6.0f}{seconds / unit:8.2f}{target:>8}")


if __name__ == "__main__":
    main()
