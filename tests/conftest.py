"""所有测试共用的准备。"""

import signal

# 在后台启动测试时（例如持续集成），进程会继承“忽略 Ctrl-C”，子进程也跟着忽略；
# 恢复成平常的样子，中断的测试才测得准
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
