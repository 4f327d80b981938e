"""`efface doctor`: what is installed, which device works, and what a task needs that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .console import print_result

MARKS = {True: "ok", False: "missing"}


@dataclass(frozen=True)
class Doctor:
    """Report what is installed, which device works, and what each task needs that is missing.

    The exit code is 0 where everything that efface itself needs is installed, and 1 where something is missing; extras
    that are missing do not change it.
    """

    example: ClassVar[str] = "efface doctor"
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> int:
        from ..api.examining import examine

        found = examine()
        lines = [f"{f.name:<20} {f.says}" for f in found.facts]
        lines += ["", "What you can do:"]
        for task in found.tasks:
            missing = f"; it needs {', '.join(task.missing)}: {task.remedy}" if task.missing else ""
            lines.append(f"{MARKS[not task.missing]:<8} {task.name}{missing}")
        lines += ["", *(f"broken   {said}" for said in found.broken)] if found.broken else []
        data = {
            "facts": {f.name: f.says for f in found.facts},
            "tasks": [{"task": t.name, "missing": list(t.missing), "remedy": t.remedy} for t in found.tasks],
            "broken": list(found.broken),
        }
        print_result(data, self.json, "\n".join(lines))
        return 0 if found.works else 1
