"""Reading compiled programs: shapes, instructions, loops."""

import jax
import jax.numpy as jnp
import pytest

from flan_jax.planning import hlo

LOOP = """
%body (p: (s32[], f32[4], s32[])) -> (s32[], f32[4], s32[]) {
  %p = (s32[], f32[4]{0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %one = s32[] get-tuple-element(%p), index=2
  %next = s32[] add(%i, %one)
  %x = f32[4]{0} get-tuple-element(%p), index=1
  ROOT %t = (s32[], f32[4]{0}, s32[]) tuple(%next, %x, %one)
}

%condition (p: (s32[], f32[4], s32[])) -> pred[] {
  %p.1 = (s32[], f32[4]{0}, s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %end = s32[]{:T(128)} constant(LENGTH)
  ROOT %lt = pred[] compare(%i.1, %end), direction=LT
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x.1 = f32[4]{0} parameter(0)
  %zero = s32[] constant(FIRST)
  %copy = s32[] copy(%zero)
  %step = s32[] constant(STEP)
  %start = (s32[], f32[4]{0}, s32[]) tuple(%copy, %x.1, /*index=2*/%step)
  %while = (s32[], f32[4]{0}, s32[]) while(%start), condition=%condition, body=%body
  ROOT %out = f32[4]{0} get-tuple-element(%while), index=1
}
"""


def trips(*, first="0", length="24", step="1", said=""):
    text = LOOP.replace("FIRST", first).replace("LENGTH", length).replace("STEP", step)
    program = hlo.read(text.replace("body=%body", f"body=%body{said}"))
    entry = program.computations["main"]
    return program.trip_count(entry["while"], within=entry)


def test_a_loop_without_a_stated_length_is_counted_from_its_condition():
    assert trips() == 24 and trips(first="4") == 20


def test_a_stated_length_is_believed():
    assert trips(said=', backend_config={"known_trip_count":{"n":"5"}}') == 5


def test_a_loop_may_take_larger_steps():
    assert trips(step="2") == 12 and trips(step="5") == 5


def test_a_loop_whose_step_is_no_number_has_no_known_length():
    assert trips(step="nan") is None


def test_a_loop_within_a_loop_may_start_at_what_the_outer_one_carries():
    outer = """
%outer (q: (s32[], s32[])) -> (s32[], s32[]) {
  %q = (s32[], s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %kept = s32[] get-tuple-element(%q), index=1
  %up = s32[] constant(1)
  %more = s32[] add(%j, %up)
  %x.2 = f32[4]{0} custom()
  %begin = (s32[], f32[4]{0}, s32[]) tuple(%kept, %x.2, %up)
  %inner = (s32[], f32[4]{0}, s32[]) while(%begin), condition=%condition, body=%body
  ROOT %r = (s32[], s32[]) tuple(%more, %kept)
}

%until (q: (s32[], s32[])) -> pred[] {
  %q.1 = (s32[], s32[]) parameter(0)
  %j.1 = s32[] get-tuple-element(%q.1), index=0
  %last = s32[] constant(3)
  ROOT %lt.1 = pred[] compare(%j.1, %last), direction=LT
}
"""
    entry = """
ENTRY %main (x: f32[4]) -> s32[] {
  %none = s32[] constant(0)
  %four = s32[] constant(4)
  %t.1 = (s32[], s32[]) tuple(%none, %four)
  ROOT %w = (s32[], s32[]) while(%t.1), condition=%until, body=%outer
}
"""
    program = hlo.read(LOOP.split("ENTRY")[0].replace("LENGTH", "24") + outer + entry)
    assert [(times, sure) for _, times, sure in program.bodies()] == [(1, True), (3, True), (60, True)]


def test_a_loop_of_unknown_length_counts_once_and_is_not_sure():
    program = hlo.read(LOOP.replace("FIRST", "0").replace("LENGTH", "24").replace("STEP", "nan"))
    assert [(times, sure) for _, times, sure in program.bodies()] == [(1, True), (1, False)]


def test_a_scan_compiled_here_has_its_length():
    def program(x):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry), None), x, None, length=11)[0]

    found = hlo.read(jax.jit(program).lower(jnp.zeros(4)).compile().as_text())
    loops = [(times, sure) for _, times, sure in found.bodies() if times != 1]
    assert loops and set(loops) == {(11, True)}


@pytest.mark.parametrize(
    "shape, size, space",
    [
        ("bf16[16,512]{1,0:T(8,128)(2,1)S(1)}", 16384, 1),
        ("f32[]", 4, 0),
        ("pred[3]{0}", 3, 0),
        ("s4[5]{0}", 3, 0),
        ("f8e4m3fn[7]{0:S(5)}", 7, 5),
    ],
)
def test_a_shape_has_bytes_and_a_memory(shape, size, space):
    (array,) = hlo.arrays_of(shape)
    assert (array.bytes, array.space) == (size, space)


def test_an_instruction_with_a_tuple_for_result_is_read_whole():
    program = hlo.read(
        "ENTRY %main (x: f32[2]) -> f32[2] {\n"
        "  %x = f32[2]{0} parameter(0)\n"
        "  ROOT %f = (f32[2]{0}, /*index=1*/s32[3]{0:S(2)}) fusion(%x, %x), kind=kLoop, calls=%g, "
        'metadata={op_name="jit(step)/mul(2)"}\n'
        "}\n"
    )
    found = program.computations["main"]["f"]
    assert (found.opcode, found.operands, found.called, found.is_root) == ("fusion", ("x", "x"), ("g",), True)
    assert [array.sizes for array in found.arrays] == [(2,), (3,)] and found.op_name == "jit(step)/mul(2)"


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.read("HloModule nothing")
