"""Reading compiled programs: shapes, instructions, loops."""

import jax
import jax.numpy as jnp
import pytest

from flan_jax.planning import hlo

LOOPS = """
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %p = (s32[], f32[4]{0}) parameter(0)
}

%outer (q: (s32[], f32[4])) -> (s32[], f32[4]) {
  %q = (s32[], f32[4]{0}) parameter(0)
  ROOT %inner = (s32[], f32[4]{0}) while(%q), condition=%condition, body=%bodyINNER
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %start = (s32[], f32[4]{0}) parameter(0)
  ROOT %loop = (s32[], f32[4]{0}) while(%start), body=%outer, backend_config={"known_trip_count":{"n":"3"}}
}
"""


CONDITION = """
%condition (p: (s32[], f32[4])) -> pred[] {
  %p.1 = (s32[], f32[4]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %length = s32[]{:T(128)} constant(24)
  ROOT %lt = pred[]{:T(512)} compare(%i, %length), direction=LT
}
"""


def times(inner, *, condition=""):
    text = condition + LOOPS.replace("INNER", inner)
    return [(times, is_known) for _, times, is_known in hlo.read(text).bodies()]


def test_nested_loops_multiply():
    inner = ', backend_config={"known_trip_count":{"n":"20"}}'
    assert times(inner) == [(1, True), (3, True), (60, True)]


def test_the_length_of_a_scan_is_read_from_its_condition():
    assert times("", condition=CONDITION) == [(1, True), (3, True), (72, True)]


@pytest.mark.parametrize(
    "old, new", [("direction=LT", "direction=NE"), ("constant(24)", "get-tuple-element(%p.1), index=0")]
)
def test_other_conditions_have_no_known_length(old, new):
    assert times("", condition=CONDITION.replace(old, new))[-1] == (3, False)


def test_a_loop_of_unknown_length_counts_once_and_is_marked():
    assert times("") == [(1, True), (3, True), (3, False)]


def test_the_length_of_a_compiled_scan_is_known():
    def program(x):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry), None), x, None, length=11)[0]

    compiled = hlo.read(jax.jit(program).lower(jnp.zeros(4)).compile().as_text())
    loops = [(times, is_known) for _, times, is_known in compiled.bodies() if times != 1]
    assert loops and set(loops) == {(11, True)}


@pytest.mark.parametrize(
    "shape, size, space",
    [
        ("bf16[16,512]{1,0:T(8,128)(2,1)S(1)}", 16384, 1),
        ("f32[]", 4, 0),
        ("pred[3]{0}", 3, 0),
        ("s4[5]{0}", 3, 0),
        ("c64[2]{0}", 16, 0),
        ("f8e4m3fn[7]{0:S(5)}", 7, 5),
        ("f32[<=4,2]{1,0}", 32, 0),
    ],
)
def test_a_shape_has_bytes_and_a_memory_space(shape, size, space):
    assert hlo.arrays_of(shape) == (hlo.Array(bytes=size, space=space),)


def test_an_instruction_with_a_tuple_as_result_is_read_completely():
    program = hlo.read(
        "ENTRY %main (x: f32[2]) -> f32[2] {\n"
        "  %x = f32[2]{0:T(8,128)(2,1)S(1)} parameter(0)\n"
        "  ROOT %f = (f32[2]{0:T(8,128)}, /*index=1*/s32[3]{0:S(2)}, token[]) fusion(%x, %x), kind=kLoop, calls=%g, "
        'metadata={op_name="jit(step)/mul(2)"}\n'
        "}\n"
    )
    instruction = program.computations["main"]["f"]
    assert (instruction.opcode, instruction.operands, instruction.called, instruction.is_root) == (
        "fusion",
        ("x", "x"),
        ("g",),
        True,
    )
    assert [array.bytes for array in instruction.arrays] == [8, 12]
    assert instruction.attribute(r'op_name="([^"]*)"') == "jit(step)/mul(2)"
    assert program.computations["main"]["x"].operands == ("0",)
