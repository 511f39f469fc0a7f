"""What YAML is read, what its plain scalars mean, and what is refused."""

import pytest

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.policy.parse import Entry, Scalar


def read(text: str) -> Entry:
    return Entry.parse(text, source="some.yaml", fault=SetupError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 16:9", "16:9"),
        ("a: yes", "yes"),
        ("a: off", "off"),
        ("a: 2026-01-01", "2026-01-01"),
        ("a: 1_000", "1_000"),
        ("a: 0x10", "0x10"),
        ("a: .inf", ".inf"),
        ("a: .nan", ".nan"),
        ("a: 1e999", "1e999"),
        ("a: '4'", "4"),
        ("a: 'true'", "true"),
        ("a: ''", ""),
        ("a: |\n  4", "4"),
        ("a: 12345678901234567890", "12345678901234567890"),
        ("a: 010", 10),
        ("a: -4", -4),
        ("a: 4.", 4.0),
        ("a: -.5", -0.5),
        ("a: 1e3", 1000.0),
        ("a: True", True),
        ("a: FALSE", False),
        ("a:", None),
        ("a: ~", None),
        ("a: null", None),
        ('{"a": 4}', 4),
        ("\ufeffa: 4", 4),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: Scalar) -> None:
    found = read(text).mapping("a")["a"].scalar()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a", "line 1: the file must be a mapping"),
        ("deny", "the file must be a mapping"),
        ("default: allow\ndefault: deny", "line 2: the file has the key default twice"),
        ("tools: {? [a] : {rules: []}}", "tools has a key that is not text"),
        ("tools: {*: {rules: []}}", "alias"),
        ("default: [", "cannot be read"),
        ("default: 'deny", "line 1: this YAML cannot be read"),
        ("default: deny\x00", "cannot be read"),
        ("default: deny\n---\ndefault: allow", "another document"),
        ("version: &a 1\ndefault: *a", "line 2: this YAML cannot be read: aliases are not read"),
        ("default: !!str deny", "tags are not read"),
        ("tools: !!python/object/apply:os.getcwd []", "tags are not read"),
        ("[" * 200_000, "nested more than 12 deep"),
        ("#" * (256 * 1024 + 1), "larger than the 256 kB"),
    ],
)
def test_what_is_no_plain_mapping_is_refused_with_the_line(text: str, said: str) -> None:
    with pytest.raises(SetupError) as error:
        for entry in read(text).mapping("default", "version", "tools").values():
            entry.mapping()
    assert str(error.value).startswith("some.yaml")
    assert said in str(error.value)
