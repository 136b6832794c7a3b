"""Settings shared by all tests: hypothesis draws the same examples on every machine."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "reproducible",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("reproducible")

# one thread: small tensors gain nothing from more, and on a busy machine threads wait for each other
torch.set_num_threads(1)
