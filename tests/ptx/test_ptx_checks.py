"""The interpreter of PTX by itself: what it reports, and what it does not."""

from __future__ import annotations

import pytest
import torch
from ptx.library import ORDERS, Options
from ptx.programs import floats, kinds

# Each thread keeps its number in shared memory, and reads that of the thread 32 further on.
HAND_OVER = """
st.shared.b32 [%r2], %r1;
{}
xor.b32 %r3, %r2, 128;
ld.shared.b32 %r4, [%r3];
st.global.b32 [%rd11], %r4;
"""


@pytest.mark.parametrize("order", ORDERS)
def test_a_hand_over_needs_a_barrier(launch, order):
    out = torch.empty(64, dtype=torch.int32)
    options = Options(order)
    assert launch(HAND_OVER.format("bar.sync 0;"), floats(0), out, 64, options).findings == ()
    assert out.tolist() == [i ^ 32 for i in range(64)]
    found = kinds(launch(HAND_OVER.format(""), floats(0), out, 64, options))
    assert "race: read after write without a barrier" in found


def test_what_others_read_is_not_overwritten(launch):
    again = HAND_OVER.format("bar.sync 0;") + "{}\nst.shared.b32 [%r2], %r4;"
    out = torch.empty(64, dtype=torch.int32)
    assert launch(again.format("bar.sync 0;"), floats(0), out, 64).findings == ()
    found = kinds(launch(again.format(""), floats(0), out, 64))
    # The first warp overwrites what the second one still has to read, and has read itself what the
    # second one overwrites.
    assert sorted(found) == [
        "race: read after write without a barrier",
        "race: write after read without a barrier",
    ]


@pytest.mark.parametrize(("value", "kind"), [("%r1", "race: write after"), ("7", "note: the same")])
def test_two_warps_that_write_one_place_race_unless_they_agree(launch, value, kind):
    body = f"""
    and.b32 %r3, %r2, -129;
    mov.b32 %r4, {value};
    st.shared.b32 [%r3], %r4;
    st.global.b32 [%rd11], %r4;
    """
    run = launch(body, floats(0), torch.empty(64), 64)
    assert any(found.startswith(kind) for found in kinds(run))
    assert all(finding.is_note for finding in run.findings) == (value == "7")


def test_lanes_of_a_warp_hand_over_with_a_note(launch):
    body = HAND_OVER.replace("128", "4")
    out = torch.empty(32, dtype=torch.int32)
    noted = ["note: handed over in a warp without bar.warp.sync"]
    assert kinds(launch(body.format(""), floats(0), out)) == noted
    assert kinds(launch(body.format("bar.warp.sync 0xffffffff;"), floats(0), out)) == []


COPY = """
cp.async.ca.shared.global [ %r2 + 0 ], [ %rd10 + 0 ], 0x4;
cp.async.commit_group;
cp.async.ca.shared.global [ %r2 + 512 ], [ %rd10 + 0 ], 0x4, {read};
cp.async.commit_group;
cp.async.wait_group {left};
{barrier}
xor.b32 %r3, %r2, 128;
ld.shared.b32 %r4, [%r3+{offset}];
st.global.b32 [%rd11], %r4;
"""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("left", "offset", "barrier", "expected"),
    [
        (0, 0, "bar.sync 0;", None),
        (0, 512, "bar.sync 0;", None),
        (1, 0, "bar.sync 0;", None),
        (1, 512, "bar.sync 0;", "read of a copy in flight"),
        (2, 0, "bar.sync 0;", "read of a copy in flight"),
    ],
)
def test_copies_land_when_they_are_waited_for(launch, order, left, offset, barrier, expected):
    body = COPY.format(left=left, offset=offset, barrier=barrier, read=4)
    x, out = torch.arange(64, dtype=torch.int32), torch.empty(64, dtype=torch.int32)
    found = kinds(launch(body, x, out, 64, Options(order)))
    assert found == ([expected] if expected else [])
    assert out.tolist() == ([-1] * 64 if expected else [i ^ 32 for i in range(64)])


def test_waiting_for_copies_is_no_barrier(launch):
    body = COPY.format(left=0, offset=0, barrier="", read=4)
    found = kinds(launch(body, torch.arange(64), torch.empty(64), 64))
    assert set(found) & {"race: read after write without a barrier", "read of a copy in flight"}


def test_a_copy_of_nothing_is_zero(launch):
    body = COPY.format(left=0, offset=512, barrier="bar.sync 0;", read=0)
    out = torch.empty(64)
    assert launch(body, torch.ones(64), out, 64).findings == ()
    assert out.eq(0).all()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("ld.global.b32 %r4, [%rd10+128];", ["stray global access"]),
        ("ld.global.b32 %r4, [%rd10+-4];", ["stray global access"]),
        ("ld.global.b32 %r4, [%rd10+2];", ["misaligned global access"]),
        ("ld.global.b32 %r4, [%rd11];", ["read of an output or of an unused tensor"]),
        ("st.global.b32 [%rd10], %r1;", ["write into an input"]),
        ("st.global.b32 [%rd11], %r1;", ["output written twice"]),
        ("ld.shared.b32 %r4, [%r2];", ["read of uninitialised shared memory"]),
        ("ld.shared.b32 %r4, [%r2+1024];", ["stray shared access"]),
        ("ld.shared.b32 %r4, [%r1];", ["stray shared access"]),
        ("st.shared.b32 [%r2+2], %r1;", ["misaligned shared access"]),
        ("add.s32 %r4, %r99, 1;", ["read of an uninitialised register"]),
    ],
)
def test_a_wrong_access_is_reported_with_its_line(launch, body, expected):
    out = torch.empty(32, dtype=torch.int32)
    written = f"st.global.b32 [%rd11], %r1;\n{body}"
    run = launch(written, torch.arange(32, dtype=torch.int32), out)
    assert kinds(run) == expected
    assert {finding.text for finding in run.findings} == {body}


def test_gaps_between_rows_are_not_read(launch):
    x = torch.arange(64, dtype=torch.int32).view(32, 2)[:, 0]
    out = torch.empty(32, dtype=torch.int32)
    body = """
    mad.wide.u32 %rd12, %r1, 8, %rd0;
    ld.global.{} %r4, [%rd12{}];
    st.global.b32 [%rd11], %r4;
    """
    assert launch(body.format("b32", ""), x, out).findings == ()
    assert kinds(launch(body.format("b32", "+4"), x, out)) == ["stray global access"]


def test_what_is_not_written_is_reported(launch):
    body = "setp.lt.u32 %p1, %r1, 31;\n@%p1 st.global.b32 [%rd11], %r1;"
    run = launch(body, floats(0), torch.empty(32))
    assert [(finding.kind, finding.first) for finding in run.findings] == [
        ("output never written", "4 bytes of parameter 1")
    ]


BRANCH = """
and.b32 %r3, %r1, 1;
setp.eq.b32 %p1, %r3, 1;
mov.b32 %r4, 5;
@%p1 bra $ODD;
mov.b32 %r4, 7;
{}
$ODD:
add.s32 %r4, %r4, %r1;
shfl.sync.bfly.b32 %r5, %r4, 1, 31, -1;
st.global.b32 [%rd11], %r5;
"""


def test_lanes_meet_again_behind_a_branch(launch):
    out = torch.empty(32, dtype=torch.int32)
    assert launch(BRANCH.format(""), floats(0), out).findings == ()
    assert out.tolist() == [(i ^ 1) + (5 if (i ^ 1) % 2 else 7) for i in range(32)]


def test_a_barrier_in_a_branch_is_reported(launch):
    run = launch(BRANCH.format("bar.sync 0;"), floats(0), torch.empty(32))
    assert "barrier in a divergent branch" in kinds(run)


def test_a_barrier_that_one_warp_leaves_out_is_reported(launch):
    body = """
    st.global.b32 [%rd11], %r1;
    setp.lt.u32 %p1, %r1, 32;
    @%p1 bra $END;
    bar.sync 0;
    $END:
    """
    assert kinds(launch(body, floats(0), torch.empty(64), 64)) == [
        "barrier that not all warps reach"
    ]


def test_a_loop_without_an_end_is_reported(launch):
    body = "st.global.b32 [%rd11], %r1;\n$L:\nbra.uni $L;"
    run = launch(body, floats(0), torch.empty(32), options=Options(most_steps=1000))
    assert kinds(run) == ["no end in sight"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("frobnicate.b32 %r1, %r2;", "PTX line .*: the opcode 'frobnicate.b32' is not known"),
        ("add.s32 %r1, nonsense, 3;", "an operand must be a register, a number or global_smem"),
        ("add.s32 %r1, %r2;", "'add.s32' has another number of operands"),
        ("bra $NOWHERE;", "no label '.NOWHERE'"),
    ],
)
def test_what_is_not_understood_is_named(launch, body: str, message: str):
    with pytest.raises(ValueError, match=message):
        launch(body, floats(0), torch.empty(32))


def test_a_finding_names_its_place_in_the_source(launch):
    body = """
    .loc 1 12 3 // kernels.py:12:3
    st.global.b32 [%rd11], %r1;
    st.global.b32 [%rd11+128], %r1;
    """
    run = launch(body, floats(0), torch.empty(32))
    assert "from kernels.py:12:3: CTA (0, 0, 0) warp 0 lane 0: 4 bytes at" in str(run.findings[0])
