"""After a fork: the child has the memory of its parent and none of its threads, and yet it asks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers.recorder import Asked, Recorder, Reply, obey
from tests.test_wire import program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

SCRIPT = """
import os, signal, sys, threading
import align_dsl

decider = align_dsl.load(sys.argv[1])["rated"]

def decide(scene):
    return decider(scene, ["Help.", "Wait."], {"mercy": 1}).status

print(decide("before"), flush=True)
late = []
thread = threading.Thread(target=lambda: late.append(decide("slow")))
thread.start()
input()  # until the slow question has come in
child = os.fork()
if not child:
    signal.alarm(30)
    print(*map(decide, ("before", "in the child", "slow")), flush=True)
    sys.exit()
print("the child ended with", os.waitpid(child, 0)[1])
thread.join()
print(*late, decide("after"))
"""


def test_child_and_parent_both_go_on(tmp_path: Path) -> None:
    """The child asks what its parent has in flight; and when it ends, its parent still hears."""
    slow: list[Asked] = []

    def script(asked: Asked) -> Reply:
        if b"slow" not in asked.body:
            return obey(asked)
        slow.append(asked)
        return Reply(obey(asked).content, delay=2 if len(slow) == 1 else 0)

    with Recorder(script) as server:
        # the only place is taken by the slow question
        file = program(tmp_path, server, concurrency=1, timeout=20)
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            while not slow and process.poll() is None:
                time.sleep(0.01)
            out, wrong = process.communicate("\n", timeout=60)
    assert (first, wrong) == ("tied\n", "")
    assert out.splitlines() == ["tied tied tied", "the child ended with 0", "tied tied"]
