"""A trainer that fails, vanishes or dawdles on purpose, for tests of what surrounds a training.

The training process imports this module and finds it registered; tests register it for themselves, see `stub_trainer`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path
from typing import Literal

from labeling.plugins import Report, Trainer, register
from labeling.records import Trained, TrainingData


class StubTrainer(Trainer):
    """Does what its option says, and learns nothing."""

    name = "test-trainer"
    label = "Fails on purpose"

    class Options(Trainer.Options):
        does: Literal["explodes", "vanishes", "fills the disk", "dawdles", "shows its environment"] = "dawdles"

    options: Options

    def train(self, data: TrainingData, workspace: Path, report: Report) -> Trained:
        if self.options.does == "vanishes":
            print("the last lines", flush=True)
            os._exit(9)
        if self.options.does == "fills the disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.options.does == "explodes":
            raise ArithmeticError("two and two are five \x00")
        if self.options.does == "shows its environment":
            raise LookupError(json.dumps(dict(os.environ)))
        for step in range(1, 10_000):
            report("step", step=step, steps=10_000, loss=1.0 / step)
            time.sleep(0.05)
        raise TimeoutError("nobody stopped it")


if "pytest" not in sys.modules:
    register(StubTrainer)
