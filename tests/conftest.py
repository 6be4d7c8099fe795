"""Settings of all tests."""

import pytest
import torch
from hypothesis import settings

# Wall time says nothing on a shared machine; the number of examples bounds the work.
settings.register_profile("study", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("study")

#: It needs fairseq, which has an environment of its own.
collect_ignore = ["models/fairseq/make.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Draw the same numbers in a test whatever tests ran before it in the same process."""
    torch.manual_seed(0)
