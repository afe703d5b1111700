"""The interpreter of PTX by itself: what instructions compute, and how matrices are laid out."""

from __future__ import annotations

import math

import pytest
import torch
from ptx.library import Options
from ptx.programs import PLAINLY, Bench, floats
from torch import Tensor


def bits(x: float) -> int:
    return int(floats(x).view(torch.int32))


@pytest.mark.parametrize(
    ("instruction", "inputs", "expected"),
    [
        ("div.s32 %r9, %r3, %r4", (-7, 2), -3),
        ("div.s32 %r9, %r3, %r4", (-(2**31), -1), -(2**31)),
        ("rem.s32 %r9, %r3, %r4", (-7, 2), -1),
        ("shr.s32 %r9, %r3, %r4", (-8, 1), -4),
        ("shr.s32 %r9, %r3, %r4", (-8, 40), -1),
        ("shr.u32 %r9, %r3, %r4", (-8, 1), 2**31 - 4),
        ("shr.u32 %r9, %r3, %r4", (-8, 32), 0),
        ("shl.b32 %r9, %r3, %r4", (3, 31), -(2**31)),
        ("shl.b32 %r9, %r3, %r4", (3, 32), 0),
        ("bfe.s32 %r9, %r3, 3, 1", (8,), -1),
        ("bfe.u32 %r9, %r3, 3, 5", (-1,), 31),
        ("min.s32 %r9, %r3, %r4", (-1, 1), -1),
        ("min.u32 %r9, %r3, %r4", (-1, 1), 1),
        ("mul.lo.s32 %r9, %r3, %r4", (2**30, 6), -(2**31)),
        ("prmt.b32 %r9, %r3, %r4, 0x5410", (0x44332211, 0x08070605), 0x06052211),
        ("prmt.b32 %r9, %r3, %r4, 0x9840", (0x44332281, 5), 0x00FF0581),
        ("mul.wide.s32 %rd3, %r3, %r4; cvt.u32.u64 %r9, %rd3", (-3, 5), -15),
        ("mul.wide.s32 %rd3, %r3, %r4; shr.s64 %rd3, %rd3, 32; cvt.u32.u64 %r9, %rd3", (-3, 5), -1),
        ("mul.wide.u32 %rd3, %r3, %r4; shr.u64 %rd3, %rd3, 32; cvt.u32.u64 %r9, %rd3", (-3, 5), 4),
        ("mad.lo.s32 %r9, %r3, %r4, -1", (7, 6), 41),
        ("setp.lt.s32 %p1, %r3, %r4; selp.b32 %r9, 5, 6, %p1", (-1, 1), 5),
        ("setp.lt.u32 %p1, %r3, %r4; selp.b32 %r9, 5, 6, %p1", (-1, 1), 6),
        ("setp.lt.f32 %p1, %r3, %r4; selp.b32 %r9, 5, 6, %p1", (bits(math.nan), bits(1)), 6),
        ("setp.ltu.f32 %p1, %r3, %r4; selp.b32 %r9, 5, 6, %p1", (bits(math.nan), bits(1)), 5),
        ("max.f32 %r9, %r3, %r4", (bits(math.nan), bits(1)), bits(1)),
        ("cvt.rn.f32.s32 %r9, %r3", (-(2**24) - 1,), bits(-(2.0**24))),
        ("cvt.rzi.s32.f32 %r9, %r3", (bits(-3.9),), -3),
        ("cvt.rzi.s32.f32 %r9, %r3", (bits(1e30),), 2**31 - 1),
        ("mul.f32 %r9, %r3, %r4", (bits(2.0**-100), bits(2.0**-40)), bits(2.0**-140)),
        ("mul.ftz.f32 %r9, %r3, %r4", (bits(2.0**-100), bits(2.0**-40)), 0),
        ("ex2.approx.ftz.f32 %r9, %r3", (bits(-3.0),), bits(0.125)),
        ("mov.b64 %rd3, {%r3, %r4}; add.f32x2 %rd3, %rd3, %rd3; mov.b64 {_, %r9}, %rd3",
         (bits(1), bits(3)), bits(6)),
        ("mov.b32 {%rs1, %rs2}, %r3; mov.b32 %r9, {%rs2, %rs1}", (0x00020001,), 0x00010002),
    ],
)  # fmt: skip
def test_instructions_compute_what_the_manual_says(launch, instruction, inputs, expected):
    out = torch.empty(32, dtype=torch.int32)
    given = "".join(f"mov.b32 %r{3 + i}, {value};\n" for i, value in enumerate(inputs))
    body = given + instruction.replace("; ", ";\n") + ";\nst.global.b32 [%rd11], %r9;"
    assert launch(body, floats(0), out).findings == ()
    assert out.tolist() == [expected] * 32


def test_fma_is_rounded_once(launch):
    x = floats(*(1 + i * 2**-12 for i in range(32)))
    out = torch.empty(32)
    body = """
    ld.global.b32 %r3, [%rd10];
    mul.f32 %r4, %r3, %r3;
    neg.f32 %r4, %r4;
    fma.rn.f32 %r5, %r3, %r3, %r4;
    st.global.b32 [%rd11], %r5;
    """
    assert launch(body, x, out).findings == ()
    exact = x.double() * x.double()
    assert torch.equal(out, (exact - (x * x).double()).float())
    assert out.count_nonzero() > 10


@pytest.mark.parametrize(
    ("opcode", "dtype"), [("cvt.rn.f16.f32", torch.float16), ("cvt.rn.bf16.f32", torch.bfloat16)]
)
def test_rounding_is_to_nearest_even(launch, opcode, dtype):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-9, 6, 992)
    edges = floats(0, -0.0, 65504, 65519.99, 65520, 2**-24, 2**-25, 3 * 2**-25, 2**-14, 1e30)
    x = torch.cat([sizes * torch.randn(992, generator=generator), edges, edges[:10], edges, edges])
    x = x[:1024]
    out = torch.empty(1024, dtype=torch.int32)
    body = f"ld.global.b32 %r3, [%rd10]; {opcode} %rs4, %r3; cvt.u32.u16 %r5, %rs4;"
    body = body.replace("; ", ";\n") + "\nst.global.b32 [%rd11], %r5;"
    assert launch(body, x, out, threads=1024).findings == ()
    assert torch.equal(out.short(), x.to(dtype).view(torch.int16))


def multiplied(
    launch: Bench, opcode: str, a: Tensor, b: Tensor, c: Tensor, options: Options
) -> Tensor:
    """Multiply fragments that are laid out as the PTX manual says; a [16, k], b [k, 8]."""
    packed = 4 // a.element_size()
    words: list[Tensor] = []
    for lane in range(32):
        group, place = lane // 4, lane % 4
        columns = [place * packed + half * 4 * packed for half in (0, 1)]
        rows = [(group + 8 * (reg % 2), columns[reg // 2]) for reg in range(4)]
        parts = [a[row, at : at + packed] for row, at in rows]
        parts += [b[at : at + packed, group].contiguous() for at in columns]
        words += [part.view(torch.int32) for part in parts]
        sums = [c[group + 8 * half, place * 2 : place * 2 + 2] for half in (0, 1)]
        words += [part.contiguous().view(torch.int32) for part in sums]
    out = torch.empty(32, 4, dtype=torch.int32)
    loads = "\n".join(f"ld.global.b32 %r{20 + i}, [%rd12+{4 * i}];" for i in range(10))
    body = f"""
    mad.wide.u32 %rd12, %r1, 40, %rd0;
    {loads}
    {opcode} {{%r3, %r4, %r5, %r6}}, {{%r20, %r21, %r22, %r23}}, {{%r24, %r25}}, {{%r26, %r27, %r28, %r29}};
    mad.wide.u32 %rd13, %r1, 16, %rd1;
    st.global.v4.b32 [%rd13], {{%r3, %r4, %r5, %r6}};
    """  # noqa: E501
    assert launch(body, torch.cat(words), out, options=options).findings == ()
    result = torch.empty(16, 8, dtype=torch.int32)
    for lane in range(32):
        for half in (0, 1):
            columns = slice(lane % 4 * 2, lane % 4 * 2 + 2)
            result[lane // 4 + 8 * half, columns] = out[lane, 2 * half : 2 * half + 2]
    return result.view(c.dtype)


MMA = {
    torch.float16: "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
    torch.bfloat16: "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    torch.int8: "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32",
}


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("dtype", MMA, ids=str)
def test_a_product_of_fragments_is_that_of_their_matrices(launch, dtype, truncate):
    generator = torch.Generator().manual_seed(0)
    inner = 32 if dtype == torch.int8 else 16
    shapes = ((16, inner), (inner, 8), (16, 8))
    a, b, c = (torch.randint(-99, 99, shape, generator=generator) for shape in shapes)
    sums = c.to(torch.int32 if dtype == torch.int8 else torch.float32)
    options = Options(truncate=truncate)
    found = multiplied(launch, MMA[dtype], a.to(dtype), b.to(dtype), sums, options)
    assert torch.equal(found.long(), a @ b + c)


def test_sums_are_cut_off_where_that_is_asked_for(launch):
    a, b, c = torch.zeros(16, 16), torch.zeros(16, 8), torch.ones(16, 8)
    a[:, :8], b[:8] = 2**-14, 2**-11  # eight products of 2^-25
    halves = a.half(), b.half()
    opcode = MMA[torch.float16]
    exact = multiplied(launch, opcode, *halves, c, PLAINLY)
    cut = multiplied(launch, opcode, *halves, c, Options(truncate=True))
    assert exact.eq(1 + 2**-22).all()
    assert cut.eq(1).all()


@pytest.mark.parametrize("trans", ["", ".trans"])
def test_matrices_keep_their_places_in_shared_memory(launch, trans):
    x = torch.arange(256, dtype=torch.int16)
    out = torch.empty(32, 4, dtype=torch.int32)
    body = f"""
    mad.wide.u32 %rd12, %r1, 16, %rd0;
    ld.global.v4.b32 {{%r3, %r4, %r5, %r6}}, [%rd12];
    shl.b32 %r7, %r1, 4;
    add.s32 %r7, %r7, global_smem;
    st.shared.v4.b32 [%r7], {{%r3, %r4, %r5, %r6}};
    bar.warp.sync 0xffffffff;
    ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r3, %r4, %r5, %r6}}, [%r7];
    bar.warp.sync 0xffffffff;
    stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r7], {{%r3, %r4, %r5, %r6}};
    bar.warp.sync 0xffffffff;
    ld.shared.v4.b32 {{%r3, %r4, %r5, %r6}}, [%r7];
    mad.wide.u32 %rd13, %r1, 16, %rd1;
    st.global.v4.b32 [%rd13], {{%r3, %r4, %r5, %r6}};
    """
    assert launch(body, x, out).findings == ()
    matrices = x.view(4, 8, 8)
    expected = matrices.transpose(1, 2) if trans else matrices
    assert torch.equal(out.view(torch.int16).view(4, 8, 8), expected)
