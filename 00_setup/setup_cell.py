# 准备：找到课程根目录，让下面的 import common 总能成功。每个笔记本的这一格都相同，直接运行即可。
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # 课程仓库的地址，由 start.py publish 填写
starts = [os.environ.get("COURSE_ROOT"), globals().get("__vsc_ipynb_file__"), os.getcwd()]
places = [q for s in starts if s for p in [Path(s).resolve()] for q in (p, *p.parents)]
places += [p for p in Path.cwd().glob("*/") if p.is_dir()]
root = next((p for p in places if (p / "00_setup" / "setup_cell.py").is_file()), None)
if root is None and REPOSITORY:  # 只打开了这一个文件（例如在 Colab）：把课程下载到旁边
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "course"], check=True)
    root = Path("course").resolve()
if root is None:
    raise FileNotFoundError("找不到课程文件夹：请下载整个课程，再从课程文件夹里打开本笔记本。")
sys.path.insert(0, str(root))
spec = importlib.util.find_spec("common")
if spec is None or Path(spec.origin or "").resolve().parent != root / "common":
    raise ImportError("import common 找到的不是本课程的 common：请卸载同名的包，然后重启内核。")
