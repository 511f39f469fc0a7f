"""YAML of a policy is read or refused, and its plain scalars mean what YAML 1.2 says."""

from typing import Any

import pytest

from nanobanana_mcp.domain.errors import PolicyError
from nanobanana_mcp.domain.policy.parse import Part, Scalar, read


class Form(Part):
    """A file with one key that takes anything."""

    a: Any
    b: Any = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 16:9", "16:9"),
        ("a: 2026-01-01", "2026-01-01"),
        ("a: 2026-01-01 10:00:00", "2026-01-01 10:00:00"),
        ("a: y", "y"),
        ("a: <<", "<<"),
        ("a: =", "="),
        ("a: '4'", "4"),
        ("a: 'true'", "true"),
        ("a: 'no'", "no"),
        ('a: "010"', "010"),
        ("a: ''", ""),
        ("a: |\n  4", "4"),
        ("a: >-\n  no", "no"),
        ("a: no cats", "no cats"),
        ("a: 0", 0),
        ("a: -4", -4),
        ("a: +4", 4),
        ("a: 123456789012345678", 123456789012345678),
        ("a: 4.", 4.0),
        ("a: 0.5", 0.5),
        ("a: -.5", -0.5),
        ("a: .5e1", 5.0),
        ("a: 1e3", 1000.0),
        ("a: True", True),
        ("a: FALSE", False),
        ("a:", None),
        ("a: ~", None),
        ("a: null", None),
        ('{"a": 4}', 4),
        ("\ufeffa: 4", 4),
        ("%YAML 1.2\n---\na: 4\n...\n", 4),
        ("a: [1, [b]]", (1, ("b",))),
        ("a: {yes: 1}", {"yes": 1}),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: Scalar) -> None:
    found = read(text, Form, source="some.yaml").a
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *(
            (word, f"a[1] is the word {word}, which YAML 1.1 reads as false")
            for word in ("no", "No", "NO", "off", "Off")
        ),
        *(
            (word, f"a[1] is the word {word}, which YAML 1.1 reads as true")
            for word in ("yes", "Yes", "YES", "on", "ON")
        ),
        *(
            (number, f"a[1] is {number}, which is a number in some YAML: write a number in plain decimals")
            for number in (
                "010",
                "-07",
                "0o10",
                "0x10",
                "0b1",
                "1_000",
                "1_0.5",
                "00.5",
                ".inf",
                "-.INF",
                ".nan",
                "1e999",
            )
        ),
        ("1234567890123456789", "of at most 18 digits"),
    ],
)
def test_what_older_yaml_reads_in_another_way_is_asked_about(given: str, said: str) -> None:
    with pytest.raises(PolicyError) as error:
        read(f"b: 1\na: [{given}]", Form, source="some.yaml")
    assert str(error.value).startswith(f"some.yaml, line 2: {said}" if "a[1]" in said else "some.yaml, line 2: ")
    assert said in str(error.value)
    assert read(f"a: ['{given}']", Form, source="some.yaml").a == (given,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a", "line 1: the file must be a mapping of keys to values, not a list"),
        ("deny", "line 1: the file must be a mapping of keys to values, not 'deny'"),
        ("b: 1", "line 1: the file needs a"),
        ("a: allow\na: deny", "line 2: the file has the key a twice"),
        ("a: 1\nb:\n  - {c: 1, d: 2, c: 3}", "line 3: b[1] has the key c twice"),
        ("a: {? [a] : {rules: []}}", "line 1: a has a key that is not text"),
        ("a: {'': 1}", "a has a key that is not text"),
        ("a: {*: {rules: []}}", "alias"),
        ("a: [", "cannot be read"),
        ("a: 'deny", "line 1: this YAML cannot be read"),
        ("a: deny\x00", "cannot be read"),
        ("a: deny\n---\na: allow", "another document"),
        ("b: &a 1\na: *a", "line 1: this YAML cannot be read: anchors are not read"),
        ("b: 1\na: *a", "line 2: this YAML cannot be read: aliases are not read"),
        ("a: !!str deny", "tags are not read"),
        ("a: ! deny", "tags are not read"),
        ("a: !!python/object/apply:os.getcwd []", "tags are not read"),
        ("%YAML 1.1\n---\na: 1", "this YAML cannot be read: only YAML 1.2 is read"),
        ("%TAG !e! tag:example.com,2026:\n---\na: 1", "only YAML 1.2 is read, without other directives"),
        ("[" * 200_000, "nested more than 12 deep"),
        ("a: " * 50, "cannot be read"),
        ("#" * (256 * 1024 + 1), "larger than the 256 kB"),
        ("a: 1\naa: 1\n", "line 2: the file has the unknown key aa (did you mean a?); the keys are a, b"),
        ("b: 1\n\u202ec: 1\n", "line 2: the file has the unknown key ?c"),
    ],
)
def test_what_is_no_plain_mapping_is_refused_with_the_line(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as error:
        read(text, Form, source="some.yaml")
    assert str(error.value).startswith("some.yaml")
    assert said in str(error.value)
