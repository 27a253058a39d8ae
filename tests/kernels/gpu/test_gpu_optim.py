"""Adam on the GPU equals the reference."""

import numpy as np
import pytest

from tests.cases import gpu_cases

pytestmark = pytest.mark.usefixtures("gpu")

STATIC = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (2, 300), (4, 5, 64)])
def test_adam(shape, dtype):
    rng = np.random.default_rng(0)
    x, g, m, v = (rng.standard_normal(shape).astype(dtype) for _ in range(4))
    gpu_cases.check(("optim", "adam"), [(shape, dtype)] * 3, [x, g, m, abs(v), np.array([0.01, 1.5])], STATIC)
