"""`comptoir chat` with a real engine behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.stack.conftest import ROOT, Stack


def test_the_stack_of_this_machine_is_found_and_answers_each_line(stack: Stack) -> None:
    command = ("chat", "qwen3", "--max-tokens", "8", "--port", str(stack.port))
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", *command],
        cwd=ROOT,
        env=os.environ | {"COMPTOIR_CACHE_DIR": str(stack.cache_dir)},
        input="Bonjour\nEncore\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert len(re.findall(r"\d tokens? · TTFT ", done.stderr)) == 2
