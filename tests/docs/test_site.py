"""The documentation holds together: every page is in the site's menu, every link leads somewhere, the notebook runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def test_every_page_is_in_the_menu() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert link.startswith(("https://", "http://", "mailto:")) or (page.parent / link).exists(), link


FILES = r"(?<![\w/.-])((?:tests|src|benchmarks|recipes|workshop)/[\w./-]*\w|[a-z]+/\w+\.py)(?![\w/<*])"
"""Files and folders that a page names, from the repository's root or from the package's."""


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=lambda p: p.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m ((?:benchmarks|recipes|workshop)[\w.]*\w)", text)
    named = {*re.findall(FILES, text), *(name.replace(".", "/") for name in modules)}
    near = [base / end for base in (ROOT, ROOT / "src/efface") for end in ("{}", "{}.py", "{}/__main__.py")]
    assert [name for name in sorted(named) if not any(Path(str(n).format(name)).exists() for n in near)] == []


SHORT = {"per_group=2": "per_group=1, steps=4", "rows=4, controls=2": "rows=2, controls=1, steps=4"}
"""What the notebook does in a few minutes, done in seconds."""


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (book,) = (ROOT / "docs/notebooks").glob("*.ipynb")
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for long, short in SHORT.items():
                source = source.replace(long, short)
            exec(compile(source, f"{book.name}, {cell['id']}", "exec"), names)
    assert (tmp_path / "out/cat.html").is_file() and "esr1/target" in repr(names["record"])
