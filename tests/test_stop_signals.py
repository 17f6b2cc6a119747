"""The signals that end ``inference-server`` reach it, whatever threads there are."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, signal, sys, threading, time
from inference_server.supervision.stop_signals import StopSignals
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()  # as a library's, older than what follows
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # as a careless parent process
repeated = []
signals = StopSignals(on_repeat=lambda: repeated.append(1))
for number, wanted in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGTERM), start=1):
    os.kill(os.getpid(), wanted)
    while signals.count < number or len(repeated) < number - 1:
        time.sleep(0.01)
    assert signals.count == number
signals.wait(60)
signals.ignore()
os.kill(os.getpid(), signal.SIGTERM)
print("whole")
"""


def test_signals_are_counted_beside_an_older_thread_though_blocked_at_first_and_ignored_in_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
