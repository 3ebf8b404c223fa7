"""The result of a tool call: the text that the model sees and, for custom tools, the printed output."""

import json
from dataclasses import dataclass, field


@dataclass
class ToolResult:
    ok: bool
    value: object
    stdout: list = field(default_factory=list)
    stderr: list = field(default_factory=list)

    def answer(self):
        """Parses the text of run_code, which is JSON."""
        assert self.ok, self.value
        return json.loads(self.value)
