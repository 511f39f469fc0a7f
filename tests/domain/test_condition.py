"""Each operator matches the values that it should, in a rule that requires it and in a rule that denies."""

import pytest

from nanobanana_mcp.domain.errors import PolicyError
from nanobanana_mcp.domain.policy.rules import Policy, Verdict

ARGS: dict[str, object] = {
    "prompt": "a red cat",
    "n": 4,
    "ratio": "16:9",
    "draft": True,
    "mask": None,
    "images": [{"role": "style", "weight": 0.5}, {"role": "subject"}],
    "tags": ["cat", 1],
}


def judge(rules: str, *, args: dict[str, object] | None = None) -> Verdict:
    """The verdict on generate_image under a flow list of rules."""
    text = f"tools: {{generate_image: {{rules: {rules}}}}}"
    policy = Policy.parse(text, source="policy.yaml")
    return policy.judge("generate_image", ARGS if args is None else args, required=())


CONDITIONS = [
    # path, op, value, holds as a requirement, matches in a deny
    ("args.n", "eq", "4", True, True),
    ("args.n", "eq", "4.0", True, True),
    ("args.n", "eq", "5", False, False),
    ("args.n", "eq", "'4'", False, False),
    ("args.draft", "eq", "true", True, True),
    ("args.draft", "eq", "1", False, False),
    ("args.ratio", "eq", "16:9", True, True),
    ("args.images", "eq", "style", False, False),
    ("args.n", "neq", "5", True, True),
    ("args.n", "neq", "4", False, False),
    ("args.n", "neq", "'4'", True, True),
    ("args.gone", "eq", "4", False, False),
    ("args.gone", "neq", "4", True, False),
    ("args.mask", "neq", "4", True, False),
    ("args.n", "in", "[1, 4]", True, True),
    ("args.n", "in", "[1, 2]", False, False),
    ("args.n", "in", "[]", False, False),
    ("args.draft", "in", "[1]", False, False),
    ("args.gone", "in", "[1]", False, False),
    ("args.n", "not_in", "[1, 2]", True, True),
    ("args.n", "not_in", "[1, 4]", False, False),
    ("args.gone", "not_in", "[1]", True, False),
    ("args.n", "lt", "4", False, False),
    ("args.n", "lt", "4.5", True, True),
    ("args.n", "lte", "4", True, True),
    ("args.n", "lte", "3", False, False),
    ("args.n", "gt", "4", False, False),
    ("args.n", "gt", "-1e1", True, True),
    ("args.n", "gte", "4", True, True),
    ("args.n", "gte", "5", False, False),
    ("args.prompt", "lt", "4", False, False),
    ("args.prompt", "gte", "4", False, False),
    ("args.draft", "lte", "4", False, False),
    ("args.gone", "lt", "4", False, False),
    ("args.prompt", "regex", "'r.d'", True, True),
    ("args.prompt", "regex", "'^red'", False, False),
    ("args.n", "regex", "'4'", False, False),
    ("args.gone", "regex", "'.*'", False, False),
    ("args.prompt", "contains", "red", True, True),
    ("args.prompt", "contains", "dog", False, False),
    ("args.ratio", "contains", "9", False, False),
    ("args.tags", "contains", "cat", True, True),
    ("args.tags", "contains", "ca", False, False),
    ("args.tags", "contains", "true", False, False),
    ("args.n", "contains", "4", False, False),
    ("args.gone", "contains", "4", False, False),
    ("args.n", "exists", "true", True, True),
    ("args.n", "exists", "false", False, False),
    ("args.gone", "exists", "true", False, False),
    ("args.gone", "exists", "false", True, True),
    ("args.mask", "exists", "true", False, False),
    ("args.mask", "exists", "false", True, True),
    ("args.images[0].role", "eq", "style", True, True),
    ("args.images[1].role", "eq", "subject", True, True),
    ("args.images[0].weight", "lt", "1", True, True),
    ("args.images[2].role", "exists", "true", False, False),
    ("args.images.role", "exists", "true", False, False),
    ("args.prompt[0]", "exists", "true", False, False),
    ("args.n.m", "exists", "true", False, False),
    ("args.tags[*]", "eq", "cat", False, True),
    ("args.tags[*]", "neq", "dog", True, True),
    ("args.tags[*]", "in", "[cat, 1]", True, True),
    ("args.images[*].role", "eq", "style", False, True),
    ("args.images[*].role", "in", "[style, subject]", True, True),
    ("args.images[*].role", "regex", "'^s'", True, True),
    ("args.images[*].weight", "lt", "1", True, True),
    ("args.images[*]", "exists", "true", True, True),
    ("args.gone[*]", "exists", "false", True, True),
    ("args.gone[*]", "eq", "cat", True, False),
    ("args.prompt[*]", "exists", "true", False, False),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "op", "value", "holds", "matches"), CONDITIONS)
def test_a_condition_holds_as_a_requirement_and_matches_in_a_deny(
    path: str, op: str, value: str, holds: bool, matches: bool
) -> None:
    condition = f"conditions: [{{path: '{path}', op: {op}, value: {value}}}]"
    assert judge(f"[{{{condition}}}]").allowed is holds
    assert judge(f"[{{action: allow, {condition}}}]").allowed is holds
    assert judge(f"[{{action: deny, {condition}}}]").allowed is not matches


def test_a_deny_needs_all_of_its_conditions_and_an_allow_each_of_them() -> None:
    both = "conditions: [{path: args.n, op: eq, value: 4}, {path: args.prompt, op: contains, value: dog}]"
    assert judge(f"[{{action: deny, {both}}}]").allowed
    assert not judge(f"[{{{both}}}]").allowed


def test_a_long_argument_does_not_flood_the_refusal() -> None:
    verdict = judge("[{conditions: [{path: args.prompt, op: eq, value: cat}]}]", args={"prompt": "x" * 9_000})
    assert len(verdict.message) < 250


def test_a_text_of_ten_thousand_characters_is_searched_and_a_longer_one_counts_against_the_call() -> None:
    condition = "conditions: [{path: args.prompt, op: regex, value: 'end$'}]"
    for length, found, allowed, denied in ((10_000, "end", True, True), (10_000, "...", False, False)):
        args: dict[str, object] = {"prompt": found.rjust(length)}
        assert judge(f"[{{{condition}}}]", args=args).allowed is allowed
        assert judge(f"[{{action: deny, {condition}}}]", args=args).allowed is not denied
    for found in ("end", "..."):
        args = {"prompt": found.rjust(10_001)}
        assert "10,001 characters" in judge(f"[{{{condition}}}]", args=args).message
        assert not judge(f"[{{action: deny, {condition}}}]", args=args).allowed


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("args.n", "conditions[1] must be a mapping"),
        ("{path: args.n, op: eq}", "conditions[1] needs value"),
        ("{path: n, op: eq, value: 1}", "path must be like args.n"),
        ("{path: args, op: eq, value: 1}", "path must be like args.n"),
        ("{path: state.n, op: eq, value: 1}", "path must be like args.n"),
        ("{path: 'args.[0]', op: eq, value: 1}", "path must be like args.n"),
        ("{path: 'args.n[-1]', op: eq, value: 1}", "path must be like args.n"),
        ("{path: args.n..m, op: eq, value: 1}", "path must be like args.n"),
        ("{path: args.n, op: equals, value: 1}", "op must be 'eq', 'neq'"),
        ("{path: args.n, op: eq, value: [1]}", "value must be a single value"),
        ("{path: args.n, op: eq, value: null}", "value must not be null"),
        ("{path: args.n, op: in, value: 1}", "value must be a list"),
        ("{path: args.n, op: not_in, value: [~]}", "value[1] must not be null"),
        ("{path: args.n, op: lt, value: '1'}", "value must be a number"),
        ("{path: args.n, op: gte, value: true}", "value must be a number"),
        ("{path: args.n, op: lt, value: .nan}", "value is .nan, which is a number in some YAML"),
        ("{path: args.n, op: exists, value: 1}", "value must be true or false"),
        ("{path: args.n, op: regex, value: 1}", "value must be text"),
        ("{path: args.n, op: regex, value: '('}", "value is not a regular expression"),
        ("{path: args.n, op: regex, value: 'a{99999999999}'}", "is not a regular expression"),
        ("{path: args.n, op: regex, value: " + "a" * 1_001 + "}", "at most 1,000 characters"),
    ],
)
def test_a_malformed_condition_is_refused_by_its_place(condition: str, said: str) -> None:
    with pytest.raises(PolicyError) as error:
        judge(f"[{{}}, {{conditions: [{condition}]}}]")
    assert "policy.yaml, line 1: tools.generate_image.rules[2].conditions[1]" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "^(a|aa)+$", "^(a|a)*$", "(.*)*(.*)*(.*)*b$", "(x+x+)+y", "(?:a{0,30}){30}$"]
)
def test_no_pattern_holds_a_call_up(pattern: str) -> None:
    prompt = "a" * 5000 + "x" * 4990 + "!"
    for action in ("allow", "deny"):
        judge(
            f"[{{action: {action}, conditions: [{{path: args.prompt, op: regex, value: '{pattern}'}}]}}]",
            args={"prompt": prompt},
        )


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=a)", "(?<!a)b"])
def test_a_pattern_that_could_blow_up_is_refused_in_words(pattern: str) -> None:
    with pytest.raises(PolicyError, match="is not a regular expression that RE2 accepts"):
        judge(f"[{{conditions: [{{path: args.prompt, op: regex, value: '{pattern}'}}]}}]")


def test_half_a_character_is_no_way_past_a_pattern() -> None:
    rule = "[{action: deny, conditions: [{path: args.prompt, op: regex, value: secret}]}]"
    assert not judge(rule, args={"prompt": "\ud83d secret"}).allowed
