"""Counting an optimised program: loops as often as they run, products with padding not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2s_jax.aot.hlo import Program, in_hbm, nbytes

LOOPS = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_body (p: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %p = (s32[], bf16[8,16]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[8,16]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %w = bf16[16,16]{1,0} constant({...})
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %y = bf16[8,16]{1,0:T(8,128)(2,1)} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %gathered = bf16[32,16]{1,0} all-gather(%y), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %out = (s32[], bf16[8,16]) tuple(%next, %y)
}

%inner_condition (p.1: (s32[], bf16[8,16])) -> pred[] {
  %p.1 = (s32[], bf16[8,16]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %limit = s32[] constant(6)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

%outer_body (q: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %q = (s32[], bf16[8,16]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %z = bf16[8,16]{1,0} get-tuple-element(%q), index=1
  %zero = s32[] constant(0)
  %begin = (s32[], bf16[8,16]) tuple(%zero, %z)
  %loop = (s32[], bf16[8,16]) while(%begin), condition=%inner_condition, body=%inner_body
  %z.1 = bf16[8,16]{1,0} get-tuple-element(%loop), index=1
  %one = s32[] constant(1)
  %next.1 = s32[] add(%j, %one)
  ROOT %out.1 = (s32[], bf16[8,16]) tuple(%next.1, %z.1)
}

%outer_condition (q.1: (s32[], bf16[8,16])) -> pred[] {
  %q.1 = (s32[], bf16[8,16]) parameter(0)
  %j.1 = s32[] get-tuple-element(%q.1), index=0
  %limit.1 = s32[] constant(5)
  ROOT %less.1 = pred[] compare(%j.1, %limit.1), direction=LT
}

ENTRY %main (x0: bf16[8,16]) -> bf16[8,16] {
  %x0 = bf16[8,16]{1,0} parameter(0)
  %start = s32[] constant(1)
  %begin.1 = (s32[], bf16[8,16]) tuple(%start, %x0)
  %loop.1 = (s32[], bf16[8,16]) while(%begin.1), condition=%outer_condition, body=%outer_body
  %total = f32[4]{0} all-reduce(%x0), replica_groups={{0,1}}, to_apply=%add
  ROOT %result = bf16[8,16]{1,0} get-tuple-element(%loop.1), index=1
}
"""


def test_loops_multiply() -> None:
    """Four outer rounds (1 … 4), three inner ones (0, 2, 4)."""
    counts = Program(LOOPS).count()
    assert counts.matmul_flops == 4 * 3 * 2 * 8 * 16 * 16
    assert counts.collective_bytes == {"all-gather": 4 * 3 * 3 * 8 * 16 * 2, "all-reduce": 8 * 16 * 2}


def test_a_loop_without_a_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot tell how often"):
        Program(LOOPS.replace("direction=LT", "direction=NE").replace("constant(1)", "parameter(1)")).count()


def test_what_stays_on_the_chip_is_no_traffic() -> None:
    assert nbytes("(bf16[8,16]{1,0:T(8,128)}, f32[])") == 8 * 16 * 2 + 4
    assert in_hbm("bf16[8,16]{1,0:T(8,128)(2,1)S(1)}") == 0
    assert in_hbm("(bf16[8,16]{1,0:S(1)}, s32[4]{0})") == 16


@pytest.mark.parametrize(
    ("lhs", "rhs", "options"),
    [
        ((2, 9, 3), (3, 3, 4), dict(window_strides=(1,), padding=[(0, 0)])),
        ((2, 9, 3), (4, 3, 4), dict(window_strides=(2,), padding=[(3, 1)])),
        ((2, 5, 3), (3, 3, 4), dict(window_strides=(1,), padding=[(2, 2)], lhs_dilation=(2,))),
        ((2, 9, 3), (3, 3, 4), dict(window_strides=(1,), padding=[(1, 0)], rhs_dilation=(2,))),
        ((2, 3, 3), (3, 3, 4), dict(window_strides=(1,), padding=[(2, 2)])),
    ],
)
def test_convolutions_skip_padding(lhs: tuple[int, ...], rhs: tuple[int, ...], options: dict) -> None:
    """As many products as there are pairs of ones: a convolution of ones counts them."""
    dimensions = ("NWC", "WIO", "NWC")
    convolve = lambda a, b: jax.lax.conv_general_dilated(a, b, dimension_numbers=dimensions, **options)  # noqa: E731
    products = np.asarray(convolve(jnp.ones(lhs), jnp.ones(rhs))).sum()
    text = jax.jit(convolve).lower(jnp.ones(lhs), jnp.ones(rhs)).compiler_ir("hlo").as_hlo_text()
    assert Program(named(text)).count().matmul_flops == 2 * products


def named(text: str) -> str:
    """Unoptimised text in the form of optimised text: names begin with a percent sign."""
    lines = []
    for line in text.splitlines():
        if " = " in line:
            name, rest = line.split(" = ", 1)
            inside = rest.index("(", rest.index("convolution")) if "convolution(" in rest else None
            if inside:
                end = rest.index(")", inside)
                operands = ", ".join("%" + o.strip().split()[-1] for o in rest[inside + 1 : end].split(","))
                rest = rest[: inside + 1] + operands + rest[end:]
            lines.append(("  ROOT %" if "ROOT" in name else "  %") + name.split()[-1] + " = " + rest)
        elif line.startswith("ENTRY"):
            lines.append("ENTRY %main () -> f32[] {")
        else:
            lines.append(line)
    return "\n".join(lines)


def test_a_scan_of_products() -> None:
    """A real program, as XLA for this machine leaves it."""
    weights = jnp.ones((7, 16, 16))
    step = jax.jit(lambda x: jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, weights)[0])
    text = step.lower(jnp.ones((8, 16))).compile().as_text()
    assert Program(text).count().matmul_flops == 7 * 2 * 8 * 16 * 16
