"""每道编程练习：空着的题会说“尚未完成”，参考答案能通过，看似合理的错误答案会被拒绝。"""

import ast

import pytest
from lessons import LESSONS
from notebooks import NOTEBOOKS, Exercise, exercises, load_scratch, name_of

import common

CASES = [
    pytest.param(path, i, id=f"{path.stem}-{i + 1}")
    for path in NOTEBOOKS
    for i in range(len(exercises(path)))
]


def attempt(path, exercise: Exercise, answer: str | None) -> None:
    """在笔记本的定义之后运行练习格；给出答案时，用它替换题目里的空函数。"""
    namespace = load_scratch(path)
    module = ast.parse(exercise.stub)
    if answer is not None:
        given = ast.parse(answer)
        names = {node.name for node in given.body if hasattr(node, "name")}
        stubs = [n for n in module.body if getattr(n, "name", None) in names]
        assert stubs, "答案里没有题目要求的名字"
        place = module.body.index(stubs[0])
        module.body = [n for n in module.body if n not in stubs]
        module.body[place:place] = given.body
    exec(compile(ast.fix_missing_locations(module), exercise.heading, "exec"), namespace)


@pytest.mark.parametrize(("path", "index"), CASES)
def test_stub_is_reported_as_unfinished(path, index, capsys):
    attempt(path, exercises(path)[index], None)
    assert "尚未完成" in capsys.readouterr().out


@pytest.mark.parametrize(("path", "index"), CASES)
def test_answer_passes(path, index, capsys):
    exercise = exercises(path)[index]
    attempt(path, exercise, exercise.answer)
    out = capsys.readouterr().out
    assert "✓" in out and "尚未完成" not in out


@pytest.mark.parametrize(("path", "index"), CASES)
def test_wrong_answers_are_rejected(path, index):
    exercise = exercises(path)[index]
    mutations = LESSONS[name_of(path)].MUTATIONS[index]
    assert mutations, "每道练习至少要有一个错误答案"
    for old, new in mutations:
        assert old in exercise.answer, f"答案里没有 {old!r}"
        with pytest.raises(common.ExerciseError):
            attempt(path, exercise, exercise.answer.replace(old, new))


def test_every_list_of_mutations_belongs_to_an_exercise():
    counts = {name_of(path): len(exercises(path)) for path in NOTEBOOKS}
    assert {name: len(lesson.MUTATIONS) for name, lesson in LESSONS.items()} == counts


def test_last_line_of_an_exercise_is_its_check():
    for path in NOTEBOOKS:
        for exercise in exercises(path):
            last = ast.parse(exercise.stub).body[-1]
            assert ast.unparse(last).startswith("common.check_exercise("), exercise.heading
