"""Every kernel compiles for three generations of GPUs, without spilling registers or computing in float64 unasked."""

import importlib
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from tests.cases.nvrtc import compiled, library
from tinymaml.kernels import gpu
from tinymaml.kernels.formulas import Group, Operand, Step
from tinymaml.kernels.gpu import elementwise
from tinymaml.kernels.gpu.launch import Plan, Unit, unit

ARCHS = ("sm_75", "sm_80", "sm_90")
# CUDA's own sine and cosine of a float bring arguments beyond 100 000 into range in double precision.
EXEMPT = ("sin_float32", "cos_float32", "sinusoids<float>")


def families():
    """(family, group of instances) of all kernels."""
    for module in pkgutil.iter_modules(gpu.__path__):
        loaded = importlib.import_module(f"{gpu.__name__}.{module.name}")
        for group in getattr(loaded, "INSTANCES", {}):
            yield module.name, group


def fused():
    """A unit as a recorded program has it."""
    f4 = np.dtype(np.float32)
    ins = [np.empty((4, 5, 64), f4), np.broadcast_to(np.empty(64, f4), (4, 5, 64)), np.empty((4, 5, 64), np.bool_)]
    steps = (
        Step("multiply", (0, 1), f4),
        Step("sigmoid", (3,), f4),
        Step("where", (2, 4, 0), f4),
        Step("power_of", (5,), f4, (("exponent", -1.5),)),
        Step("softplus", (6,), f4),
    )
    group = Group((4, 5, 64), tuple([Operand(x.dtype, x.strides) for x in ins]), steps, (4, 7))
    plan = Plan()
    elementwise.fused_launches([[group, group]])[0](plan, [], [])
    return plan.launches[0].unit


def check(kernels, single):
    """The faults of a compiled unit; `single`: its kernels have no business with float64."""
    faults = [f"{name}: {kernel.spilled} bytes spilled" for name, kernel in kernels.items() if kernel.spilled]
    for name, kernel in kernels.items():
        if single and kernel.doubles and name not in EXEMPT:
            faults.append(f"{name}: float64 in a float32 kernel: {kernel.doubles[0]}")
    return faults


@pytest.mark.parametrize("archs", [ARCHS[-1:], pytest.param(ARCHS, marks=pytest.mark.slow)], ids=len)
def test_all_compile(record_property, archs):
    library()
    units = {f"{family}.{group}": unit(family, group) for family, group in families()} | {"fused.float": fused()}
    assert len(units) > 20
    jobs = [(what, arch) for what in sorted(units, key=lambda what: -len(units[what].source)) for arch in archs]
    # The compiler does one thing at a time in a process.
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        done = pool.map(compiled, [units[what] for what, _ in jobs], [arch for _, arch in jobs])
        results = dict(zip(jobs, done, strict=True))
    lines = [f"{'registers, bytes of shared memory, bytes spilled':70}" + "".join(f"{arch:>18}" for arch in archs)]
    faults = []
    for what, own in sorted(units.items()):
        faults += [f"{arch}: {x}" for arch in archs for x in check(results[what, arch], "double" not in what)]
        for name in own.names:
            figures = [results[what, arch][name] for arch in archs]
            lines.append(f"{name[:69]:70}" + "".join(f"{k.registers:6}{k.shared:7}{k.spilled:5}" for k in figures))
    record_property("table", "\n".join(lines))
    assert not faults, "\n".join(faults)


SPILLS = """
__global__ void __launch_bounds__(1024, 2) spills(const float* x, float* y) {
    float a[64];
    #pragma unroll
    for (int i = 0; i < 64; i++) a[i] = x[i * 32 + threadIdx.x];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 64; i++) y[i] = a[i] * a[63 - i] + a[(i + 7) % 64];
}"""
DOUBLES = "__global__ void doubles(const float* x, float* y) { y[0] = x[0] * 0.1; }"
ROTTEN = "__global__ void rotten(float* y) { y[0] = nothing; }"


def test_faults_are_found():
    assert "bytes spilled" in check(compiled(Unit(SPILLS, ("spills",)), "sm_90"), single=True)[0]
    doubles = compiled(Unit(DOUBLES, ("doubles",)), "sm_90")
    assert "mul.f64" in check(doubles, single=True)[0]
    assert not check(doubles, single=False)
    with pytest.raises(RuntimeError, match='identifier "nothing" is undefined'):
        compiled(Unit(ROTTEN, ("rotten",)), "sm_90")
