import jinja2
import pytest
from jinja2.sandbox import SecurityError

from flan_jax.draws import Draws
from flan_jax.templates import sandbox


def fill(source, *, key="key", **fields):
    return sandbox.fill(source, fields, draws=lambda: Draws(key))


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("{{ x.__class__ }}", "the attribute '__class__' of 'str'"),
        ("{{ x.upper.__self__ }}", "the attribute '__self__'"),
        ("{{ ''['__class__'] }}", "the attribute '__class__' of 'str'"),
        ("{{ x | attr('__class__') }}", "the attribute '__class__' of 'str'"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "the attribute '__init__' of 'type'"),
        ("{{ '{0.__class__}'.format(x) }}", "the attribute '__class__' of 'str'"),
        ("{{ self._TemplateReference__context }}", "the attribute '_TemplateReference__context'"),
        ("{% include '/etc/passwd' %}", r"another file \(include in line 1\)"),
        ("{% import 'os' as os %}", r"another file \(import in line 1\)"),
        ("a\n{% from 'os' import system %}", r"another file \(fromimport in line 2\)"),
        ("{% extends 'base' %}", r"another file \(extends in line 1\)"),
        ("{% for i in range(10**9) %}{% endfor %}", "more than 100,000 steps"),
        ("{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", "more than 100,000 steps"),
        ("{% set l = [1] %}{% for i in l %}{% set _ = l.append(i) %}{% endfor %}", "more than 100,000 steps"),
    ],
)
def test_what_a_template_reaches_for_in_vain(source, reached):
    with pytest.raises(SecurityError, match=reached):
        fill(source, x="text")


def test_what_is_drawn_depends_on_the_key_alone():
    for name in ("choice", "random"):
        source = f"{{{{ numbers | {name} }}}}"
        drawn = [fill(source, key=key, numbers=range(1000)) for key in (1, 2, 1)]
        assert drawn[0] == drawn[2] != drawn[1]
    with pytest.raises(ValueError, match="nothing to choose from"):
        fill("{{ [] | choice }}")
    assert fill("{{ [] | random }}|") == "|"


def test_nothing_draws_by_itself():
    with pytest.raises(jinja2.UndefinedError, match="'lipsum' is undefined"):
        fill("{{ lipsum() }}")


def test_most_frequent_gives_all_that_are_as_frequent():
    assert fill("{{ ['a', 'b', 'b', 'c', 'c'] | most_frequent }}") == "['b', 'c']"
    assert fill("{{ [] | most_frequent }}") == "None"


def test_templates_can_build_lists_of_their_own():
    source = "{% set l = [] %}{% for i in range(3) %}{{ l.append(i) or '' }}{% endfor %}{{ l | join('+') }}"
    assert fill(source) == "0+1+2"


def test_an_unset_variable_is_empty_and_what_hangs_on_it_fails():
    assert fill("[{{ gone }}]") == "[]"
    with pytest.raises(jinja2.UndefinedError, match="'gone' is undefined"):
        fill("{{ gone.more }}")
