"""The scripts that no other test walks through."""

import json
import subprocess
import sys

from support import ENVIRONMENT, ROOT


def test_the_benchmark_runs_and_states_what_it_ran_on(tmp_path):
    small = "--repeats 1 --vocabulary 300 --sentences 2 --candidates 2".split()
    command = [sys.executable, ROOT / "scripts/bench.py", *small, "--output", tmp_path / "bench.json"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    assert {"python", "torch", "device"} <= set(record)
    assert len(record["rows"]) == len(done.stdout.splitlines()) - 2 == 6
    assert all(row["ms"] > 0 and row["baseline_ms"] > 0 for row in record["rows"])
