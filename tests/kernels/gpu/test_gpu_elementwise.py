"""Elementwise kernels on the GPU: all there are, special values, layouts, and groups of them as one kernel."""

from itertools import chain

import numpy as np
import pytest

from tests.cases import gpu_cases
from tinymaml.kernels import formulas
from tinymaml.kernels.cpu import elementwise as reference
from tinymaml.kernels.formulas import Group, Operand, Step
from tinymaml.kernels.gpu import elementwise
from tinymaml.kernels.gpu.launch import Plan

pytestmark = pytest.mark.usefixtures("gpu")

COMPARED = (
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "first_is_larger", "first_is_smaller",
)  # fmt: skip
COUNT = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "power", "gate", *COMPARED), 2),
    "where": 3,
    "descend": 3,
}
STATIC = {"power_of": [{"exponent": n} for n in (2, -1, 0.5, 3, -1.5)], "astype": [{"dtype": np.dtype(np.float64)}]}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 80.0, -80.0, 1e30]


def test_every_kernel_has_a_formula():
    own = {
        name
        for name, f in vars(reference).items()
        if callable(f) and getattr(f, "__module__", "").endswith("elementwise")
    }
    assert {name for name in own if not name.startswith("_")} - {"Callable", "Sequence"} == set(formulas.FORMULAS)


def operands(name, shape, dtype, rng):
    ins = [(rng.random(shape) + 0.2).astype(dtype) for _ in range(COUNT.get(name, 1))]
    if name in COMPARED:
        ins[1] = np.where(rng.random(shape) < 0.5, ins[0], ins[1])
    if name == "where":
        ins[0] = ins[0] > 0.6
    return ins


def result(name, dtype, static):
    return np.bool_ if name in COMPARED else static.get("dtype", dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(formulas.FORMULAS))
def test_a_kernel(name, dtype):
    rng = np.random.default_rng(0)
    for static in STATIC.get(name, [{}]):
        for shape in ((), (1,), (2, 0, 3), (3, 4, 5), (2, 700)):
            ins = operands(name, shape, dtype, rng)
            gpu_cases.check(("elementwise", name), [(shape, result(name, dtype, static))], ins, static)
        shape = (3, 4, 5)
        wide = [
            np.broadcast_to(x[:, :1, ::-1].transpose(2, 1, 0), shape) for x in operands(name, (5, 4, 3), dtype, rng)
        ]
        gpu_cases.check(("elementwise", name), [(shape, result(name, dtype, static))], wide, static)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(formulas.FORMULAS) - {"astype", "copy", "power", "power_of", "where"}))
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_special_values(name, dtype):
    x = np.array(SPECIAL, dtype)
    grid = np.meshgrid(*[x] * COUNT.get(name, 1), indexing="ij")
    if name in ("sin", "cos"):
        grid = [np.where(np.abs(grid[0]) < 1e3, grid[0], 0)]
    shape = grid[0].shape
    (actual,) = gpu_cases.run(("elementwise", name), [(shape, result(name, dtype, {}))], grid, {})
    expected = np.empty(shape, result(name, dtype, {}))
    getattr(reference, name)([expected], grid)
    np.testing.assert_allclose(actual, expected, rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.int64, np.uint16])
def test_whole_numbers(kind):
    rng = np.random.default_rng(0)
    condition = rng.integers(0, 2, (3, 4)).astype(kind)
    a, b = rng.standard_normal((2, 3, 4)).astype(np.float32)
    gpu_cases.check(("elementwise", "where"), [((3, 4), np.float32)], [condition, a, b], {})
    gpu_cases.check(("elementwise", "copy"), [((4, 3), kind)], [condition.T], {})
    if kind == np.int64:
        for name in COMPARED:
            gpu_cases.check(("elementwise", name), [((3, 4), np.bool_)], [condition, condition[::-1]], {})
    else:
        with pytest.raises(TypeError, match=f"greater: no kernel for {np.dtype(kind)}, {np.dtype(kind)} on a GPU"):
            gpu_cases.run(("elementwise", "greater"), [((3, 4), np.bool_)], [condition, condition], {})


F4 = np.dtype(np.float32)


def one_by_one(group, ins):
    """The values of a group by its kernels one after the other."""
    values = list(ins)
    for step in group.steps:
        spec = [(group.shape, step.dtype)]
        values += gpu_cases.run(("elementwise", step.name), spec, [values[i] for i in step.operands], dict(step.static))
    return [values[i] for i in group.results]


def test_groups():
    """Several kernels as one give the bits that they give one by one, for several results and all kinds of layout."""
    rng = np.random.default_rng(0)
    groups, operands = [], []
    for shape in ((7,), (3, 5, 8), (2, 3, 300)):
        whole = rng.standard_normal(shape).astype(F4)
        row = np.broadcast_to(rng.standard_normal(shape[-1:]).astype(F4), shape)
        task = np.broadcast_to(rng.standard_normal((shape[0], *[1] * (len(shape) - 1))).astype(F4), shape)
        turned = np.ascontiguousarray(whole.T).T
        ins = [whole, row, task, turned, whole > 0]
        steps = (
            Step("multiply", (0, 1), F4),
            Step("descend", (5, 2, 3), F4),
            Step("sigmoid", (6,), F4),
            Step("greater", (6, 7), np.dtype(np.bool_)),
            Step("where", (8, 7, 0), F4),
            Step("power_of", (9,), F4, (("exponent", 2),)),
            Step("where", (4, 10, 6), F4),
        )
        groups.append(Group(shape, tuple([Operand(x.dtype, x.strides) for x in ins]), steps, (6, 8, 11)))
        operands.append(ins)
    launches = elementwise.fused_launches([[group] for group in groups])
    (together,) = elementwise.fused_launches([groups])

    def launched(launch, groups, operands):
        outs = [
            gpu_cases.put(np.full(own.shape, 7).astype(own.dtypes[value])) for own in groups for value in own.results
        ]
        plan = Plan()
        launch(plan, outs, [gpu_cases.put(x) for ins in operands for x in ins])
        assert len(plan.launches) == 1
        plan.run()
        return [y.get() for y in outs]

    expected = [one_by_one(group, ins) for group, ins in zip(groups, operands, strict=True)]
    actual = [launched(*own) for own in zip(launches, [[x] for x in groups], [[x] for x in operands], strict=True)]
    for own in (chain(*actual), launched(together, groups, operands)):
        for x, y in zip(own, chain(*expected), strict=True):
            np.testing.assert_array_equal(x, y)


def test_axes_that_do_not_collapse():
    x = np.arange(2.0**6).reshape((2,) * 6).transpose(5, 3, 1, 4, 2, 0)
    with pytest.raises(ValueError, match="laid out in more than 5 steps"):
        gpu_cases.run(("elementwise", "copy"), [(x.shape, x.dtype)], [x], {})
