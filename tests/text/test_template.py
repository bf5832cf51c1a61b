"""Chat templates: the text of `transformers`, a date that stays, and an end to every template."""

import datetime
import resource
import time

import pytest
from transformers.utils import chat_template_utils

from ste_jax.text.template import DEFAULT_DATE, ChatSettings, render
from tests.errors import raises

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name <b>two</b> rivers & a 'lake'.\n"},
    {"role": "assistant", "content": "<think>hm</think>\n\nLoire, Rhône."},
    {"role": "user", "content": "  And\ttwo more?  "},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def rendered(source: str, messages: list[dict[str, str]] = MESSAGES, date: str = DEFAULT_DATE) -> str:
    return render(source, messages, date=date, add_generation_prompt=True, special=SPECIAL)


TEMPLATES = {
    "namespace": """
{%- set ns = namespace(system='', count=0, seen=[]) %}
{%- for m in messages if m.role == 'system' %}{% set ns.system = ns.system + m['content'] %}{% endfor %}
{%- for m in messages[1:] %}
    {%- set ns.count = ns.count + 1 %}{% set ns.seen = ns.seen + [m.role] %}
    {{- bos_token if loop.first else '' }}[{{ m.role | upper }}:{{ loop.index }}/{{ loop.length }}]
    {{- m.content.split('</think>')[-1].lstrip('\\n') if m.role == 'assistant' else m.content | trim }}
{%- endfor %}
{{ ns.system ~ ns.count ~ ns.seen | join(',') }}{% if add_generation_prompt %}[A]{% endif %}""",
    "macro": """
{%- macro turn(role, text, last=false) -%}
<{{ role }}>{{ text | replace('two', '2') | tojson }}{{ caller() if caller }}{% if last %}!{% endif %}
{%- endmacro %}
{%- for m in messages %}{{ turn(m.role, m.content, last=loop.last) }}{% endfor %}
{%- call turn('x', 'y') %} from {{ messages | length }}{% endcall %}""",
    "statements": """
{%- for m in messages %}
  {%- if m.role == 'system' %}{% continue %}{% endif %}
  {%- if loop.index > 3 %}{% break %}{% endif %}
  {% generation %}{% set hidden = 1 %}{{ m['content'] }}{% endgeneration %}
  {% set block | trim %}  {{ m.role }}  {% endset %}{{ block }}{{ hidden is defined }}
{% else %}none{% endfor %}
{% filter upper %}done{% endfilter %}""",
    "filters": """
{{- messages | map(attribute='role') | unique | list | tojson(indent=2) }}
{{- messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}
{{- messages[0] | dictsort }}{{ messages[0].items() | list }}{{ dict(a=1, b=[2, 3]) | tojson }}
{{- '%s-%d' | format('a', 3) }}{{ '%.2f' % 1.5 }}{{ '{:>4}|{}'.format('x', 2) }}{{ 'ab'.center(9) }}
{{- range(3) | sum }}{{ [3, 1, 2] | sort | first }}{{ 7 // 2 }}{{ 2 ** 5 }}{{ 'a' * 3 }}{{ -1 | abs }}
{{- messages[::-1][0].content[2:5] }}{{ messages | groupby('role') | length }}{{ 5 % 3 }}{{ none }}
{{- [1, 2, 3] | batch(2) | list }}{{ 'x' in messages[1].content and 'x' is string }}{{ undefined_name }}
{{- {'a': {'b': (1, 2)}}['a'].b[0] }}{{ 'a\\nb' | indent(2) }}{{ 3 if tools is none else 4 }}""",
    "recursive": """
{%- for part in [['a', ['b', ['c']]], 'd'] recursive %}
{%- if part is string %}{{ part }}{% else %}({{ loop(part) }}){% endif %}{% endfor %}""",
    "dates": "{{ date_string }} {{ strftime_now('%A, %-d. %B %Y, %H:%M') }}",
}


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "dates"])
def test_text_equals_that_of_transformers(name: str) -> None:
    theirs, _ = chat_template_utils.render_jinja_template(
        [MESSAGES], chat_template=TEMPLATES[name], add_generation_prompt=True, **SPECIAL
    )
    assert rendered(TEMPLATES[name]) == theirs[0]


def test_the_date_is_given_and_not_that_of_the_clock() -> None:
    assert rendered(TEMPLATES["dates"]) == "26 Jul 2024 Friday, 26. July 2024, 00:00"
    assert rendered(TEMPLATES["dates"], date="2031-01-02") == "02 Jan 2031 Thursday, 2. January 2031, 00:00"
    assert str(datetime.date.today().year) not in rendered("{{ strftime_now('%Y') }}", date="1999-01-01")
    for wrong in ("today", "2024-13-01", "26 Jul 2024"):
        with raises("argument_invalid", "chat_date", wrong):
            ChatSettings(date=wrong)


def test_nothing_is_drawn_at_random() -> None:
    for source in ("{{ [1, 2, 3] | random }}", "{{ lipsum() }}"):
        with raises("chat_invalid"):
            rendered(source)


LONG = "{% set s = 'a' * 10**6 %}"


def grown(start: str, step: str) -> str:
    return f"{{% set n = namespace(x={start}) %}}{{% for i in range(99) %}}{step}{{% endfor %}}{{{{ n.x }}}}"


def twice(body: str, variables: tuple[str, str] = ("i", "j")) -> str:
    first, second = (f"{{% for {name} in range(99999) %}}" for name in variables)
    return f"{first}{second}{body}{{% endfor %}}{{% endfor %}}"


HOSTILE = {
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "loops": twice("{% set x = j %}"),
    "loops with a test": "{% for i in range(9999) %}{% for j in range(99999) if 0 %}{% endfor %}{% endfor %}",
    "generators": "{% for i in range(99999) %}{{ range(99999) | map('string') | list | length }}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "two calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for i in [1] recursive %}{{ loop([1, 1]) if loop.depth < 60 }}{% endfor %}",
    "calls": "{% macro m() %}{{ caller() }}{% endmacro %}" + twice("{% call m() %}{% endcall %}"),
    "product": "{{ 'a' * 10**10 }}",
    "list": "{{ ([1] * 10**9) | length }}",
    "power": "{{ 10 ** 10 ** 8 }}",
    "squares": grown("3", "{% set n.x = n.x * n.x %}"),
    "concatenations": grown("'a'", "{% set n.x = n.x ~ n.x %}"),
    "sums": grown("'a'", "{% set n.x = n.x + n.x %}"),
    "blocks": grown("'a'", "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}"),
    "lists in lists": grown("['a']", "{% set n.x = [n.x, n.x] %}"),
    "dicts in dicts": grown("{}", "{% set n.x = {'a': n.x, 'b': n.x} %}"),
    "a namespace in itself": grown("0", "{% set n.x = n %}"),
    "center": "{{ 'a' | center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "width": "{{ '%09999999999d' % 1 }}",
    "width of a filter": "{{ '%9999999999d' | format(1) }}",
    "width of a method": "{{ '{:>9999999999}'.format(1) }}",
    "width as argument": "{{ '{:>{}}'.format(1, 10**10) }}",
    "width from a tuple": "{{ '%*d' % (10**9, 1) }}",
    "precision from a tuple": "{{ '%.*f' | format(10**9, 1.0) }}",
    "width from a list": "{{ '{0[1]:{0[0]}}'.format([10**9, 1]) }}",
    "width from a mapping": "{{ '{a:{w}}'.format_map({'a': 1, 'w': '>900000000'}) }}",
    "width of bytes": "{{ '%900000000d'.encode() % 1 }}",
    "many widths": "{{ ('%(a)9999d' * 80000) % {'a': 1} }}",
    "many widths of a method": "{{ ('{0:9999}' * 80000).format(1) }}",
    "many widths of a date": "{{ strftime_now('%255d' * 3000000) }}",
    "indent of JSON": "{{ messages | tojson(indent=900000000) }}",
    "indent of JSON in a map": "{{ [messages, messages] | map('tojson', indent=10**8) | list }}",
    "text as indent of JSON": LONG + "{{ range(1000) | list | tojson(indent=s) }}",
    "separators of JSON": LONG + "{{ range(1000) | list | tojson(separators=(s, ':')) }}",
    "deep JSON": grown("range(300) | list", "{% set n.x = [n.x] %}") + "{{ [n.x] | tojson(indent=12000) }}",
    "one message often": "{{ [messages[1]] * 800000 }}",
    "JSON of one message often": "{{ ([messages[1]] * 800000) | tojson }}",
    "long integers": "{{ [1" + "0" * 3000 + "] * 300000 }}",
    "characters of a text": "{{ ('Ж' * 9000000) | list | length }}",
    "characters as arguments": "{{ cycler(*('Ж' * 9000000)) }}",
    "round": "{{ 1.5 | round(10**9, 'ceil') }}",
    "round to tens": "{{ 15 | round(-(10**9)) }}",
    "width of an indent": "{{ 'a' | indent(10**9) }}",
    "text as indent": LONG + "{{ ('\\n' * 1000) | indent(s) }}",
    "center in a map": "{{ ['a'] | map('center', 10**9) | list }}",
    "batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "slice": "{{ [1] | slice(10**10) | list }}",
    "replace": LONG + "{{ s.replace('a', s) }}",
    "replace filter": LONG + "{{ s | replace('a', s) }}",
    "join": LONG + "{{ range(99999) | join(s) }}",
    "join method": LONG + "{{ s.join(s) }}",
    "map of join": LONG + "{{ ([[1, 1]] * 99999) | map('join', s) | list | length }}",
    "indent": "{{ ('\\n' * 10**6) | indent(10**6) }}",
    "translate": LONG + "{{ s.translate({97: s}) }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "sum": "{% set l = [1] * 10**5 %}{{ ([l] * 10**5) | sum(start=[]) }}",
    "comparisons": LONG + "{% set t = 'a' * 10**6 %}" + twice("{% if s == t %}{% endif %}"),
    "searches": LONG + twice("{% if 'b' in s %}{% endif %}"),
    "counts": LONG + twice("{% set x = s.count('b') %}"),
    "slices": LONG + twice("{% set x = s[1:] %}"),
    "text in a loop": "{% set x %}{% for i in range(99999) %}" + "x" * 90_000 + "{% endfor %}{% endset %}",
    "values in a loop": LONG + "{% set x %}{% for i in range(99999) %}{{ s }}{% endfor %}{% endset %}",
    "tests of a filter": LONG + "{{ range(99999) | map('string') | select('in', s) | list | length }}",
    "wordwrap": LONG + "{{ s | wordwrap(1) }}",
    "striptags": "{{ ('<!---->' * 10**5) | striptags }}",
    "filter block": "{% filter center(10**10) %}x{% endfilter %}",
    "set filter": "{% set x | center(10**10) %}x{% endset %}",
    "strip": LONG + "{{ s.strip('b' * 900000 ~ 'a') }}",
    "trim": LONG + "{{ s | trim('b' * 900000 ~ 'a') }}",
    "strip in a map": LONG + "{{ [s] | map('trim', 'b' * 900000 ~ 'a') | list }}",
    "search from the right": LONG + "{{ s.rfind('ab' ~ 'a' * 500000) }}",
    "split from the right": LONG + "{{ s.rsplit('ab' ~ 'a' * 500000) | length }}",
    "search of bytes": LONG + "{{ s.encode().rindex(('ab' ~ 'a' * 500000).encode()) }}",
    "encoding": "{{ ('é' * 900000).encode('punycode') | length }}",
    "decoding": "{{ ('a' * 900000).encode().decode(encoding='punycode') | length }}",
    "colons of a format": "{{ ('{' ~ ':' * 900000).format(1) }}",
    "braces of a format": "{{ ('{0!' * 300000 ~ ':').format(1) }}",
    "stars of a format": "{{ ('%' ~ '0*' * 900000) % 1 }}",
    "parentheses": "{{ " + "(" * 40_000 + "1" + ")" * 40_000 + " }}",
    "conditions": "{% if 1 %}" * 4000 + "{% endif %}" * 4000,
    "negations": "{{ " + "not " * 20_000 + "1 }}",
    "length": "x" * 10**6,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_template_comes_to_an_end(name: str) -> None:
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with raises("chat_invalid", "chat template"):
        rendered(HOSTILE[name])
    assert time.process_time() - started < 20.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 // 0 }}",
        "{{ 1 + 'a' }}",
        "{{ messages.absent.absent }}",
        "{{ raise_exception() }}",
        "{{ raise_exception(messages) }}",
        "{% include 'other' %}",
        "{% for %}",
        "{{ messages | absent }}",
        "{{ messages[0].content.encode('utf-9') }}",
        "{{ messages.append(1) }}",
        "{{ 'a'.__class__.mro() }}",
        "{{ [1] | tojson(indent=[]) }}",
        "{{ {messages: 1} }}",
        "{{ '%d' % 'a' }}",
        "{{ 10**9000 }}",
        "{{ strftime_now(1) }}",
    ],
)
def test_whatever_a_template_raises_is_a_user_error(source: str) -> None:
    with raises("chat_invalid", "['system', 'user', 'assistant', 'user']"):
        rendered(source)


def test_many_messages_are_rendered() -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i} " * 1000} for i in range(400)]
    looked_up = "{% if loop.index0 == messages | length - 1 and messages[-1].content %}.{% endif %}"
    written = "{{ messages[1:] | length }}{{ m.content }}"
    source = "{% for m in messages %}" + looked_up + written + "{% endfor %}"
    assert len(rendered(source, messages)) > 1_000_000


def test_formats_and_numbers_of_usual_size_are_rendered() -> None:
    dated = "On 2024-07-26, {} said: {{{:>4}}} %s"
    source = (
        f"{{{{ '{dated}'.format(messages[1].content * 500, 7) % (messages[2].content * 500) | length }}}}"
        "{{ 1700000000 | round(1) }} {{ 1700000000 * 1000 }} {{ '%d' | format(1700000000) }}"
        "{{ [1700000000, [messages, 1.5]] | tojson(indent=4) | length }}"
        "{{ (messages[1].content * 1000) | replace('two', '2') | length }}"
        "{{ messages | rejectattr('role', 'in', ['system']) | list | length }}"
    )
    theirs, _ = chat_template_utils.render_jinja_template(
        [MESSAGES], chat_template=source, add_generation_prompt=True, **SPECIAL
    )
    assert rendered(source) == theirs[0]


def test_long_messages_are_rendered() -> None:
    messages = [
        {"role": role, "content": "word " * 100_000} for role in ("system", "user", "assistant", "user")
    ]
    text = rendered(TEMPLATES["namespace"], messages)
    assert len(text) > 2_000_000
