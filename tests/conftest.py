"""What all tests share: one thread, so that parallel test processes do not fight."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
