"""What a run can be asked to do."""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["train", "validate", "test", "export"]
MODES: tuple[Mode, ...] = get_args(Mode)
