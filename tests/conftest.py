"""What all tests share: one thread, so that parallel test processes do not fight; no deadlines."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A deadline measures the machine, not the code: nothing here is a timed assertion.
settings.register_profile("renalkit", deadline=None)
settings.load_profile("renalkit")
