"""常见问题页：每一条都按“现象、原因、解决、如何确认”写全。"""

import re

import pytest
from notebook_files import ROOT

PAGE = ROOT / "00_setup" / "07_troubleshooting.md"
PARTS = ("现象", "原因", "解决", "如何确认")


def entries(text: str) -> dict[str, str]:
    """三级标题 → 它下面的文字。"""
    parts = re.split(r"^(#{2,3}) (.+)$", text, flags=re.MULTILINE)[1:]
    return {parts[i + 1]: parts[i + 2] for i in range(0, len(parts), 3) if parts[i] == "###"}


def missing(body: str) -> list[str]:
    """缺少的、次序不对的或空着的部分。"""
    found = re.split(r"^\*\*(\w+)\*\*：", body, flags=re.MULTILINE)[1:]
    if tuple(found[::2]) != PARTS:
        return [part for part in PARTS if part not in found[::2]] or ["次序"]
    return [part for part, text in zip(PARTS, found[1::2], strict=True) if len(text.strip()) < 8]


def test_every_entry_is_complete():
    found = entries(PAGE.read_text(encoding="utf-8"))
    assert len(found) >= 25
    assert {name: missing(body) for name, body in found.items() if missing(body)} == {}


@pytest.mark.parametrize(("old", "new", "problem"), [
    ("**原因**：", "", ["原因"]), ("因为没有装好这个包。", "", ["原因"]),
    ("**现象**", "**如何确认**", ["现象"]),
])
def test_an_incomplete_entry_is_noticed(old, new, problem):
    body = ("\n**现象**：报错，不能运行。\n\n**原因**：因为没有装好这个包。\n\n"
            "**解决**：把它装好再运行。\n\n**如何确认**：再运行一次看看。\n")
    assert missing(body) == []
    assert missing(body.replace(old, new)) == problem
