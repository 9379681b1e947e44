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


_DOUBLED = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
_TUPLES = "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}"
_ENDLESS = [
    "{% set x = 7**(7**9) %}",
    "{{ (9**9)**(9**6) }}",
    "{{ 1 | round(10**9, 'ceil') }}",
    "{% set r = range(90000) %}{% for i in r %}{% endfor %}{% for i in r %}{% endfor %}",
    "{% set r = range(300) | list %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "{% set l = [1] %}{% for i in range(60) %}{% set _ = l.extend(l) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set x = 'a' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    *(_DOUBLED + end for end in ("{{ ns.x }}", "{{ ns.x | upper }}", "{{ ns.x | tojson }}", "{{ '%s' % ns.x }}")),
    *(_DOUBLED + end for end in ("{{ '{}'.format(ns.x) }}", "{{ [ns.x, [1]] | sort }}", "{{ [ns.x].index(1) }}")),
    *(_TUPLES + end for end in ("{{ {ns.x: 1} }}", "{{ {'a': 1}[ns.x] }}", "{{ [ns.x] | most_frequent }}")),
    _DOUBLED.replace("ns.x", "ns.y") + _DOUBLED[31:] + "{{ ns.x == ns.y }}",
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * [1] }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ ['a'] | map('center', 10**9) | list }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%*d' | format(10**9, 1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=10**9) }}",
    "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "{{ range(90000) | join('b' * 100000) }}",
    "{{ ('a ' * 100000) | wordwrap(1, wrapstring='b' * 100000) }}",
    "{{ ('a\n' * 100000) | indent(100000) }}",
    "{{ '\t'.expandtabs(10**9) }}",
    "{{ ('x' * 1000).translate({120: 'y' * 100000}) }}",
    "{{ {'a': 1} | tojson(indent=10**9) }}",
    "{{ ['a'] | batch(10**9, 'x') | list }}",
    "{{ (1).to_bytes(10**9, 'big') }}",
    "{{ 'a'.encode().ljust(10**9) }}",
    "{{ '%2000000d'.encode() % 1 }}",
    "{{ 'a'.encode().replace('a'.encode(), ('b' * 900000).encode() * 2) }}",
    "{{ ('{0:99999}' * 100).format('a') }}",
    "{{ ('%99999d' * 20) % (1, 2) }}",
]


def test_every_rendering_ends():
    for source in _ENDLESS:
        with pytest.raises(SecurityError, match="more than 100,000 steps|a value of more than 1,000,000"):
            fill(source)
            pytest.fail(source)


def test_honest_templates_stay_within_the_budget():
    text = "word " * 20_000
    assert fill("{{ x.split()[:3] | join(' ') | upper }}", x=text) == "WORD WORD WORD"
    assert fill("{{ x | replace('o', '00') | length }}", x=text) == str(len(text) + 20_000)
    assert (
        fill("{% for word in x.split() %}{% if loop.last %}{{ loop.length }}{% endif %}{% endfor %}", x=text) == "20000"
    )
    assert (
        fill("{{ 2**10 + 7 % 4 }} {{ '%s-%d' % ('a', 3) }} {{ 3 * 'ab' }} {{ [1] + [2] }}") == "1027 a-3 ababab [1, 2]"
    )
    assert fill("{{ '{:.2f} of {}'.format(1 / 3, 'b') }} {{ 'a' ~ 1 ~ none }}") == "0.33 of b a1None"
    assert fill("{{ [3, 1] | map('string') | join(', ') }} {{ range(3) | select('lt', 2) | list }}") == "3, 1 [0, 1]"
    assert (
        fill("{{ 'word word word' | truncate(5) }}|{{ 'ab' | center(4) }}|{{ 'a b' | wordwrap(1) }}")
        == "wo...| ab |a\nb"
    )


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
