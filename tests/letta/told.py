"""What one call of a tool gave: the text that the model sees, and for custom tools what they printed."""

import json
from dataclasses import dataclass, field


@dataclass
class Told:
    ok: bool
    value: object
    stdout: list = field(default_factory=list)
    stderr: list = field(default_factory=list)

    def answer(self):
        """The text of run_code, read as what it is: JSON."""
        assert self.ok, self.value
        return json.loads(self.value)
