"""What an optimised HLO program does, counted with loops taken as often as they run.

``Compiled.cost_analysis()`` counts the body of a loop once; a scanned model is almost all loop. Here the text of the
program is read: every ``while`` multiplies what is in its body by its trip count.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "bf16": 16,
    "f16": 16,
    "s16": 16,
    "u16": 16,
    "s32": 32,
    "u32": 32,
}
BITS |= {"f32": 32, "s64": 64, "u64": 64, "f64": 64, "f8e4m3fn": 8, "f8e5m2": 8}

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (.*)$")
_OPERATION = re.compile(r" ([a-z][\w-]*)\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|called_computations)=\{?%([\w.-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LAID_OUT = re.compile(r"[a-z]\w*\[[\d,]*\](?:\{[^{}]*\})?")
_ELSEWHERE = re.compile(r"S\([1-9]\d*\)")
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    operation: str
    shape: str
    text: str
    """Operands and attributes."""

    @cached_property
    def operands(self) -> list[str]:
        """Names of the operands."""
        return re.findall(r"%([\w.-]+)", self.text[: _closing(self.text)])

    @property
    def bytes(self) -> int:
        """Size of what it gives."""
        return nbytes(self.shape)


@dataclass
class Counts:
    """Sums over everything that one device does in a program.

    Attributes
    ----------
    matmul_flops
        Of all matrix products and convolutions, multiplications and additions counted apart.
    int8_flops
        The part of them that multiplies 8-bit integers.
    cycles
        Sum of XLA's estimates of operations; what runs at the same time is counted apart, kernels of Pallas not at all.
    collective_bytes
        By operation: bytes that arrive at a device.
    memory_bytes
        Read from and written to HBM by operations one by one; what stays in the chip's fast memory is not counted.
    kernels
        Calls of each custom kernel.
    """

    matmul_flops: float = 0.0
    int8_flops: float = 0.0
    cycles: float = 0.0
    memory_bytes: float = 0.0
    collective_bytes: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)


class Program:
    """The computations of a module, by name; ``text`` is that of ``Compiled.as_text()``."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                current = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif (found := _INSTRUCTION.match(line)) and (operation := _OPERATION.search(found[2])):
                shape, rest = found[2][: operation.start()], found[2][operation.end() :]
                current[found[1]] = Instruction(found[1], operation[1], shape, rest)
        if not self.entry:
            raise ValueError("no entry computation: not the text of an HLO module")

    def walk(self) -> Iterator[tuple[float, str, Instruction, bool]]:
        """What runs: how often, the name of its computation, the instruction, whether it is part of a fusion."""
        todo = [(1.0, self.entry, False)]
        while todo:
            times, name, fused = todo.pop()
            for instruction in self.computations.get(name, {}).values():
                yield times, name, instruction, fused
                repeats = self.trip_count(name, instruction) if instruction.operation == "while" else 1
                inside = fused or instruction.operation == "fusion"
                todo += [(times * repeats, called, inside) for called in _called(instruction)]

    def count(self) -> Counts:
        """Sums over the whole program."""
        counts = Counts()
        for times, computation, instruction, fused in self.walk():
            if instruction.operation in ("convolution", "dot"):
                flops = times * self._product_flops(computation, instruction)
                counts.matmul_flops += flops
                counts.int8_flops += flops if self._is_int8(computation, instruction) else 0.0
            if cycles := _CYCLES.search(instruction.text):
                counts.cycles += times * int(cycles[1])
            if not fused:
                counts.memory_bytes += times * self._traffic(computation, instruction)
            kind = instruction.operation.removesuffix("-start")
            if kind in COLLECTIVES:
                counts.collective_bytes[kind] += int(times * self._received(computation, instruction, kind))
            if 'custom_call_target="tpu_custom_call"' in instruction.text:
                counts.kernels[re.sub(r"[.\d]+$", "", instruction.name)] += int(times)
        return counts

    def trip_count(self, computation: str, loop: Instruction) -> int:
        """How often a loop's body runs: its counter's limit less its start.

        Raises
        ------
        ValueError
            A loop that is no counted one, e.g. of ``jax.lax.while_loop``.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.text):
            return int(known[1])
        condition = self._called_by(loop, "condition")
        root = list(condition.values())[-1]
        constants = {name: self._constant(condition, name) for name in root.operands}
        limits = [value for value in constants.values() if value is not None]
        counters = [condition[n] for n, value in constants.items() if value is None and n in condition]
        if len(limits) == 1 and len(counters) == 1 and (at := re.search(r"index=(\d+)", counters[0].text)):
            start = self._initial(computation, loop.operands[0], int(at[1]))
            step = self._step(self._called_by(loop, "body"), int(at[1]))
            if start is not None and step:
                extra = 1 if "direction=LE" in root.text or "direction=GE" in root.text else 0
                return max(0, -(-(limits[0] - start + extra) // step))
        raise ValueError(f"loop {loop.name}: cannot tell how often it runs")

    def _called_by(self, loop: Instruction, what: str) -> dict[str, Instruction]:
        found = re.search(rf"{what}=%([\w.-]+)", loop.text)
        assert found, loop.name
        return self.computations[found[1]]

    def _constant(self, computation: dict[str, Instruction], name: str) -> int | None:
        at = computation.get(name)
        while at is not None and at.operation in ("copy", "bitcast", "convert"):
            at = computation.get(at.operands[0])
        if at is None or at.operation != "constant":
            return None
        value = re.match(r"(-?\d+)\)", at.text)
        return int(value[1]) if value else None

    def _initial(self, computation: str, name: str, index: int) -> int | None:
        made = self.computations[computation].get(name)
        while made is not None and made.operation in ("copy", "optimization-barrier"):
            made = self.computations[computation].get(made.operands[0])
        if made is None or made.operation != "tuple":
            return None
        return self._constant(self.computations[computation], made.operands[index])

    def _step(self, body: dict[str, Instruction], index: int) -> int | None:
        root = list(body.values())[-1]
        made = body.get(root.operands[index]) if root.operation == "tuple" else None
        while made is not None and made.operation in ("copy", "bitcast"):
            made = body.get(made.operands[0])
        if made is None:
            return None
        if made.operation == "fusion":
            called = self.computations[_called(made)[0]]
            made, body = list(called.values())[-1], called
        steps = [self._constant(body, name) for name in made.operands]
        known = [step for step in steps if step is not None]
        return known[0] if made.operation == "add" and len(known) == 1 else None

    def _shape(self, computation: str, name: str) -> list[int]:
        return dims(self.computations[computation][name].shape)

    def _product_flops(self, computation: str, product: Instruction) -> float:
        output = dims(product.shape)
        left, right = (self._shape(computation, name) for name in product.operands[:2])
        if product.operation == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", product.text)
            axes = [int(i) for i in contracted[1].split(",") if i] if contracted else []
            return 2.0 * math.prod(output) * math.prod(left[i] for i in axes)
        return _convolution_flops(product.text, left, right, output)

    def _is_int8(self, computation: str, product: Instruction) -> bool:
        operands = (self.computations[computation][name].shape for name in product.operands[:2])
        return all(shape.startswith(("s8[", "u8[")) for shape in operands)

    def _traffic(self, computation: str, instruction: Instruction) -> float:
        """Bytes that an operation reads from and writes to HBM."""
        if instruction.operation in FREE or instruction.operation.endswith("-done"):
            return 0
        if instruction.operation == "dynamic-slice":
            return 2.0 * in_hbm(instruction.shape)
        here = self.computations[computation]
        if instruction.operation == "dynamic-update-slice":
            return 2.0 * in_hbm(here[instruction.operands[1]].shape)
        if instruction.operation != "fusion":
            return in_hbm(instruction.shape) + sum(in_hbm(here[n].shape) for n in instruction.operands if n in here)
        inside = self.computations[_called(instruction)[0]]
        parameters = {i.text.split(")")[0]: i for i in inside.values() if i.operation == "parameter"}
        total = 0.0
        for number, name in enumerate(instruction.operands):
            given = in_hbm(here[name].shape)
            total += min(given, _sliced(inside, parameters[str(number)].name)) if given else 0
        root = list(inside.values())[-1]
        written = in_hbm(instruction.shape)
        if root.operation == "dynamic-update-slice":
            written = min(written, nbytes(inside[root.operands[1]].shape))
        return total + written

    def _received(self, computation: str, collective: Instruction, kind: str) -> float:
        """Bytes that arrive at one device, as ring algorithms move them."""
        n = _group_size(collective.text)
        given = sum(self.computations[computation][name].bytes for name in collective.operands)
        if kind == "all-gather":
            return given * (n - 1)
        if kind == "all-reduce":
            return 2.0 * given * (n - 1) / n
        if kind == "collective-permute":
            return given
        return given * (n - 1) / n


def dims(shape: str) -> list[int]:
    """Dimensions of the first array in a shape."""
    found = _ARRAY.search(shape)
    return [int(n) for n in found[2].split(",") if n] if found else []


def nbytes(shape: str) -> int:
    """Bytes of an array or a tuple of arrays."""
    arrays = _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", shape))
    return sum(math.prod(int(n) for n in d.split(",") if n) * BITS.get(dtype, 0) // 8 for dtype, d in arrays)


def in_hbm(shape: str) -> int:
    """Bytes of an array or tuple that lie in HBM, not in the chip's fast memory (``S(1)`` and above in a layout)."""
    return sum(nbytes(array) for array in _LAID_OUT.findall(shape) if not _ELSEWHERE.search(array))


def _sliced(computation: dict[str, Instruction], name: str) -> float:
    """Bytes of a fusion's parameter that are read: those of its slices, if nothing else uses it."""
    total = 0.0
    for user in computation.values():
        if name not in user.operands:
            continue
        if user.operation in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
            total += user.bytes
        elif user.operation == "bitcast":
            total += _sliced(computation, user.name)
        elif user.operation == "dynamic-update-slice" and user.operands[0] == name:
            total += 0.0  # written in place
        else:
            return math.inf
    return total


def _closing(text: str) -> int:
    depth = 1
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return i
    return len(text)


def _called(instruction: Instruction) -> list[str]:
    if instruction.operation in ("reduce", "reduce-window", "scatter", "sort", "map", "select-and-scatter"):
        return []
    names = _CALLED.findall(instruction.text)
    for branches in _BRANCHES.findall(instruction.text):
        names += re.findall(r"%([\w.-]+)", branches)
    if instruction.operation in ("all-reduce", "reduce-scatter", "all-reduce-start"):
        return []
    return list(dict.fromkeys(names))


def _group_size(text: str) -> int:
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return len(listed[1].split(","))
    return 2


def _convolution_flops(text: str, left: list[int], right: list[int], output: list[int]) -> float:
    """Multiplications and additions of a convolution; products with padding are not counted."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", text)
    assert labels, text
    lhs, rhs, out = labels.groups()
    window = _WINDOW.search(text)
    settings = dict(part.split("=") for part in window[1].split()) if window else {}
    flops = 2.0 * right[rhs.index("i")] * output[out.index("b")] * output[out.index("f")]
    for axis in (c for c in out if c.isdigit()):
        i = int(axis)
        low = int(_of_axis(settings, "pad", i, "0_0").split("_")[0])
        stride, lhs_dilate, rhs_dilate = (
            int(_of_axis(settings, key, i, "1")) for key in ("stride", "lhs_dilate", "rhs_dilate")
        )
        size, taps, steps = left[lhs.index(axis)], right[rhs.index(axis)], output[out.index(axis)]
        flops *= _valid_taps(size, taps, steps, low, stride, lhs_dilate, rhs_dilate)
    return flops


def _of_axis(settings: dict[str, str], key: str, axis: int, default: str) -> str:
    return settings[key].split("x")[axis] if key in settings else default


def _valid_taps(size: int, taps: int, steps: int, low: int, stride: int, lhs_dilate: int, rhs_dilate: int) -> int:
    """Pairs of an output place and a kernel place that meet an input, along one axis."""
    if taps == 1 and low == 0 and lhs_dilate == 1:
        return steps
    end = (size - 1) * lhs_dilate
    count = 0
    for tap in range(taps):
        first = tap * rhs_dilate - low
        places = (first + step * stride for step in range(steps))
        count += sum(0 <= p <= end and p % lhs_dilate == 0 for p in places)
    return count
