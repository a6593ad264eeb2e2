"""课程的小工具箱：设备、计时、画图、检查和数据。

模型、损失、优化器和训练循环都写在讲解它们的笔记本里，这里一行也没有。
"""

from .checks import ExerciseError, check_equal, check_exercise, expect
from .data import ImageData, TableData, california_housing, fashion_mnist
from .device import get_device, profile, profile_name, provenance, seed_everything
from .plotting import (
    PALETTE,
    heatmap,
    plot_confusion_matrix,
    plot_curves,
    plot_trajectory,
    show_images,
    use_style,
)
from .timing import Benchmark, Timer, benchmark, progress

use_style()
