"""Run on the stand-in device: the planned bytes of trainings beside what the device handed out, as JSON."""

from __future__ import annotations

import json

from benchmarks.gpu import GPU


def main() -> None:
    page = GPU(rehearse=True)
    print(json.dumps({name: page.measure_training(name, "sd") for name in ("esd", "eap", "erasediff")}))


main()
