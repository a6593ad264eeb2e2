"""术语表：每一行都完整，没有重复，链接指向的笔记本里确实有这个词。"""

import re
from collections import Counter

import page_rules
import pytest
from notebooks import NOTEBOOKS, name_of

PAGE = page_rules.GLOSSARY
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = page_rules.glossary_rows(TEXT)
NOTEBOOK_LINK = re.compile(r"\[\d+\.\d+ 节\]\(([^)#]+\.ipynb)\)")


def problems(rows: list[list[str]]) -> list[str]:
    """术语表的行有哪些毛病。"""
    found = []
    for row in rows:
        if len(row) != 5:
            found.append(f"应有 5 格：{row}")
            continue
        chinese, english, meaning, first, refused = row
        han = re.search(r"[\u4e00-\u9fff]", chinese)
        if not han or not re.fullmatch(r"[A-Za-z ,–-]+", english):
            found.append(f"中文或英文一栏不对：{chinese} | {english}")
        if not meaning.endswith("。") or meaning.count("。") != 1 or len(meaning) > 60:
            found.append(f"“{chinese}”的含义应是一句话，不超过 60 个字")
        if not NOTEBOOK_LINK.fullmatch(first) and not re.fullmatch(r"第 \d 章", first):
            found.append(f"“{chinese}”的首次出现应是“[3.1 节](…)”或“第 5 章”：{first}")
        words = refused.split("、") if refused else []
        if not all(re.fullmatch(r"[^（）、]+(（指.+时）)?", word) for word in words):
            found.append(f"“{chinese}”的不用的说法写错了：{refused}")
    for column in (0, 1):
        for term, times in Counter(r[column].lower() for r in rows if len(r) == 5).items():
            if times > 1:
                found.append(f"“{term}”出现了 {times} 次")
    terms = {r[0] for r in rows if len(r) == 5}
    for row in rows:
        for variant in page_rules.variants(row[4]) if len(row) == 5 else []:
            if bad := [term for term in terms if variant in term]:
                found.append(f"不用的说法“{variant}”就在术语“{bad[0]}”里")
    return found


def test_rows_are_well_formed():
    assert len(ROWS) > 100
    assert problems(ROWS) == []


def test_links_resolve_and_lead_to_the_term():
    assert page_rules.links(PAGE, TEXT) == []
    missing = []
    for chinese, english, _, first, _ in ROWS:
        if match := NOTEBOOK_LINK.fullmatch(first):
            text = page_rules.page_text(PAGE.parent / match.group(1))
            word = chinese.split("（")[0]
            number = re.search(r"\d+\.\d+", first).group()
            if word not in text:
                missing.append(f"{first} 里没有“{word}（{english}）”")
            if not text.startswith(f"# {number} "):
                missing.append(f"{first} 的编号与标题不同")
    assert missing == []


def introductions(texts: dict[str, str], row: list[str]) -> list[str]:
    """按次序列出写着“中文（English”的笔记本。texts 是 文件名 → 全部 Markdown。"""
    chinese = re.escape(row[0].split("（")[0])
    english = "|".join(re.escape(word) for word in row[1].split(", "))
    pattern = re.compile(rf"{chinese}（(?:{english})\b", re.IGNORECASE)
    return [name for name, text in texts.items() if pattern.search(text.replace("*", ""))]


def test_links_lead_to_the_first_introduction():
    texts = {name_of(path): page_rules.page_text(path) for path in NOTEBOOKS}
    wrong = []
    for row in ROWS:
        if (first := introductions(texts, row)) and f"(../{first[0]})" not in row[3]:
            wrong.append(f"“{row[0]}”最先写在 {first[0]}，术语表里却是 {row[3]}")
    assert wrong == []


def test_introductions_are_found():
    texts = {"a": "叫张量。", "b": "叫**张量**（tensor）", "c": "张量（Tensor，简称）"}
    assert introductions(texts, GOOD) == ["b", "c"]


def test_letters_and_notation_are_there():
    rest = TEXT.split("\n## 字母")[1]
    letters, notation = rest.split("\n## 记号")
    for part in (letters, notation):
        rows = page_rules.table_rows(part)
        assert len(rows) > 8 and all(len(row) == 2 and all(row) for row in rows)
        assert len({row[0] for row in rows}) == len(rows)


GOOD = ["张量", "tensor", "排成数组的数。", "第 1 章", ""]


@pytest.mark.parametrize("bad", [
    [GOOD[:4]],
    [["tensor", *GOOD[1:]]],
    [[GOOD[0], "张量", *GOOD[2:]]],
    [[*GOOD[:2], "没有句号", *GOOD[3:]]],
    [[*GOOD[:2], "第一句。第二句。", *GOOD[3:]]],
    [[*GOOD[:2], "长" * 60 + "。", *GOOD[3:]]],
    [[*GOOD[:3], "以后", ""]],
    [[*GOOD[:4], "张亮（口误）"]],
    [[*GOOD[:4], "张"]],
    [GOOD, GOOD],
    [GOOD, ["数组", *GOOD[1:]]],
])
def test_bad_rows_are_noticed(bad):
    assert problems([GOOD]) == []
    assert problems(bad)


def test_refused_words_are_read_from_the_table():
    text = (
        "## 一\n\n| 中文 | English | 一句话含义 | 首次出现 | 不用的说法 |\n|---|---|---|---|---|\n"
        "| 偏置 | bias | 参数。 | 第 3 章 | 偏差（指 bias 参数时）、偏值 |\n\n## 字母\n\n"
        "| a | b |\n"
    )
    rows = page_rules.glossary_rows(text)
    assert [row[0] for row in rows] == ["偏置"]
    assert page_rules.variants(rows[0][4]) == ["偏值"]
