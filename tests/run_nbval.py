"""运行 nbval，并多查一件事：标签为 raises-exception 的格必须真的出错（nbval 自己不管）。"""

import sys

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if getattr(item, "options", {}).get("check_exception"):
        kinds = [output["output_type"] for output in item.test_outputs]
        assert "error" in kinds, "这一格的标签是 raises-exception，运行时却没有出错"
    return result


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:], plugins=[sys.modules[__name__]]))
