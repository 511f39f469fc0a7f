"""The policy file: what it allows, denies, limits and hides, and what it refuses to be."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.errors import NotAllowed, PolicyError, PolicyViolation, SetupError
from nanobanana_mcp.domain.policy.limits import Limit
from nanobanana_mcp.domain.policy.rules import Policy, Verdict, tighten

NOON = 1_700_049_600.0  # 2023-11-15 12:00:00 UTC
ARGS: dict[str, object] = {"prompt": "a red cat", "n": 4}


def policy(text: str) -> Policy:
    return Policy.parse(text, source="/etc/nanobanana/policy.yaml")


def judge(rules: str, *, args: dict[str, object] | None = None, required: tuple[str, ...] = ()) -> Verdict:
    """The verdict on generate_image under a flow list of rules."""
    text = f"tools: {{generate_image: {{rules: {rules}}}}}"
    return policy(text).judge("generate_image", ARGS if args is None else args, required=required)


def test_a_deny_without_conditions_denies_always() -> None:
    verdict = judge("[{action: deny, on_deny: Ask the owner.}]")
    assert verdict == Verdict(
        allowed=False,
        message="generate_image is denied by rule 1 of policy.yaml. Ask the owner.",
        rule="rule 1 of policy.yaml",
    )
    assert not judge("[{action: deny, conditions: []}]").allowed


def test_a_refusal_names_the_rule_the_requirement_and_what_was_given() -> None:
    rules = "[{}, {name: few, conditions: [{path: args.n, op: lte, value: 4}], on_deny: Ask for fewer.}]"
    verdict = judge(rules, args={"n": 8})
    assert verdict.rule == 'rule 2 ("few") of policy.yaml'
    assert verdict.message == (
        'generate_image is allowed by rule 2 ("few") of policy.yaml only when args.n is at most 4; it is 8. '
        "Ask for fewer."
    )
    assert judge(rules, args={}).message.endswith("it is not given. Ask for fewer.")
    denied = judge("[{action: deny, conditions: [{path: args.n, op: in, value: [8, 9]}]}]", args={"n": 8})
    assert denied.message == "generate_image is denied by rule 1 of policy.yaml when args.n is one of 8, 9."


@pytest.mark.parametrize("empty", [None, "", "  \n", [], (), {}])
def test_a_required_argument_must_be_given_and_not_empty(empty: object) -> None:
    for demand in ("true", "[prompt]"):
        rules = f"[{{validate: {{required_args: {demand}}}}}]"
        assert judge(rules, required=("prompt",)).allowed
        for args in ({"prompt": empty}, {}):
            verdict = judge(rules, args=args, required=("prompt",))
            assert verdict.message == (
                "generate_image is allowed by rule 1 of policy.yaml only with prompt given and not empty."
            )


def test_false_and_zero_are_given_and_only_what_is_demanded_is_missed() -> None:
    assert judge("[{validate: {required_args: true}}]", args={"n": 0, "draft": False}, required=("n", "draft")).allowed
    assert judge("[{validate: {required_args: true}}]", args={}).allowed
    assert judge("[{validate: {required_args: false}}]", args={}, required=("n",)).allowed
    assert judge("[{validate: {required_args: [n]}}]", args={"n": 1}, required=("prompt",)).allowed
    assert not judge(
        "[{action: deny, conditions: [{path: args.x, op: eq, value: 1}], validate: {required_args: [y]}}]"
    ).allowed


def test_the_form_with_a_rolling_limit_required_arguments_and_allow() -> None:
    rules = "[{action: allow, rate_limit: {max: 60, window: 60}, validate: {required_args: true}}]"
    verdict = judge(rules, required=("prompt",))
    limit = Limit(key="generate_image#1", maximum=60, window_s=60.0, rolling=True, rule="rule 1 of policy.yaml")
    assert verdict == Verdict(allowed=True, limits=(limit,))
    assert judge(rules, args={}, required=("prompt",)) == Verdict(
        allowed=False,
        message="generate_image is allowed by rule 1 of policy.yaml only with prompt given and not empty.",
        rule="rule 1 of policy.yaml",
    )


def test_the_form_with_a_calendar_limit_and_conditions_limits_what_it_allows() -> None:
    rules = "[{rate_limit: 10/minute, conditions: [{path: args.n, op: lte, value: 4}], on_deny: Slow down.}]"
    (limit,) = judge(rules).limits
    assert (limit.key, limit.maximum, limit.window_s, limit.rolling) == ("generate_image#1", 10, 60.0, False)
    assert limit.on_deny == "Slow down."
    refused = judge(rules, args={"n": 5})
    assert (refused.allowed, refused.limits) == (False, ())


@pytest.mark.parametrize(("word", "seconds"), [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)])
def test_a_rate_in_words_is_a_calendar_window(word: str, seconds: int) -> None:
    (limit,) = judge(f"[{{rate_limit: 7/{word}}}]").limits
    assert (limit.maximum, limit.window_s, limit.rolling) == (7, seconds, False)


def test_limits_come_in_the_order_of_the_rules_with_those_for_every_tool_last() -> None:
    text = """
tools:
  "*": {rules: [{rate_limit: 100/day}]}
  edit_image: {rules: [{name: slow, rate_limit: 1/second}, {}, {rate_limit: {max: 5, window: 0.5}}]}
"""
    limits = policy(text).judge("edit_image", {}, required=()).limits
    assert [limit.key for limit in limits] == ["edit_image#1", "edit_image#3", "*#1"]
    assert [limit.rule for limit in limits] == [
        'rule 1 ("slow") of policy.yaml',
        "rule 3 of policy.yaml",
        "rule 1 for every tool of policy.yaml",
    ]
    assert [limit.key for limit in policy(text).judge("other", {}, required=()).limits] == ["*#1"]


def test_a_rule_for_every_tool_can_deny_any() -> None:
    text = "tools: {'*': {rules: [{action: deny, conditions: [{path: args.n, op: gt, value: 4}]}]}}"
    assert not policy(text).judge("anything", {"n": 5}, required=()).allowed
    assert policy(text).judge("anything", {"n": 4}, required=()).allowed


@pytest.mark.parametrize(
    ("tools", "allowed"),
    [
        ("{}", False),
        ("{other: {rules: [{action: allow}]}}", False),
        ("{'*': {rules: [{action: allow}]}}", False),
        ("{generate_image: {rules: []}}", False),
        ("{generate_image: {rules: [{action: deny, conditions: [{path: args.n, op: gt, value: 9}]}]}}", False),
        ("{generate_image: {rules: [{action: allow}]}}", True),
        ("{generate_image: {rules: [{rate_limit: 1/day}]}}", True),
        ("{generate_image: {rules: [{}]}, '*': {rules: [{action: deny}]}}", False),
        ("{generate_image: {rules: [{}, {action: deny}]}}", False),
    ],
)
def test_a_default_of_deny_allows_only_tools_with_a_rule_that_is_no_deny(tools: str, allowed: bool) -> None:
    verdict = policy(f"default: deny\ntools: {tools}").judge("generate_image", ARGS, required=())
    assert verdict.allowed is allowed
    assert allowed or "generate_image is denied by" in verdict.message
    other = policy(f"default: allow\ntools: {tools}").judge("unheard_of", {}, required=())
    assert other.allowed is ("'*': {rules: [{action: deny}]}" not in tools)


def test_a_reason_is_told_as_an_on_deny_is() -> None:
    text = "tools: {a: {rules: [{action: deny, WORD: Ask the owner.}]}}"
    told = [policy(text.replace("WORD", word)).judge("a", {}, required=()) for word in ("on_deny", "reason")]
    assert told[0] == told[1] and told[1].message.endswith("Ask the owner.")


def test_a_deny_of_a_tool_says_why_before_the_default_does() -> None:
    text = """
default: deny
tools:
  cleanup: {rules: [{action: deny, on_deny: Nothing is deleted here.}]}
  "*": {rules: [{validate: {required_args: [prompt]}}]}
"""
    assert policy(text).judge("cleanup", {}, required=()).message.endswith("Nothing is deleted here.")
    assert policy(text).judge("other", {}, required=()).rule == "default of policy.yaml"


def test_a_hidden_tool_is_not_listed_and_refuses() -> None:
    hiding = policy("hide: [cleanup]\ntools: {cleanup: {rules: [{action: allow}]}}")
    assert hiding.hidden("cleanup")
    assert not hiding.hidden("generate_image")
    verdict = hiding.judge("cleanup", {}, required=())
    assert (verdict.allowed, verdict.message) == (False, "cleanup is hidden by policy.yaml.")
    assert policy("hide: ['*']").hidden("anything")
    assert not policy("hide: ['*']").judge("anything", {}, required=()).allowed


@pytest.mark.parametrize("version", ["1", "'1'", "1.0", "2026-01-01", "null"])
def test_any_scalar_is_a_version(version: str) -> None:
    assert policy(f"version: {version}").judge("anything", {}, required=()).allowed


RULE = "tools: {{a: {{rules: [{}]}}}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("version: [1]", "version must be a single value"),
        (
            "version: 1\ndefualt: deny",
            "line 2: the file has the unknown key defualt (did you mean default?); the keys are",
        ),
        ("default: Deny", "default must be 'allow' or 'deny', not 'Deny' (did you mean deny?)"),
        ("default: [deny]", "default must be 'allow' or 'deny', not a list"),
        ("default:", "default must be 'allow' or 'deny', not null"),
        ("default: allow\ndefault: deny", "line 2: the file has the key default twice"),
        ("hide: cleanup", "hide must be a list"),
        ("hide: [1]", "hide[1] must be text, not 1"),
        ("hide: ['']", "hide[1] must not be empty"),
        ("hide: [[a]]", "hide[1] must be text, not a list"),
        ("tools: []", "tools must be a mapping"),
        ("tools:", "tools must be a mapping"),
        ("tools:\n  a:\n    rules:\n\n      b: 1\n", "line 3: tools.a.rules must be a list, not a mapping"),
        ("tools: {a: {rules: []}, a: {rules: []}}", "tools has the key a twice"),
        ("tools: {a: {}}", "tools.a needs rules"),
        ("tools: {a: {rule: []}}", "tools.a has the unknown key rule (did you mean rules?); the keys are rules"),
        ("tools: {a: {rules: {}}}", "tools.a.rules must be a list"),
        (RULE.format("deny"), "tools.a.rules[1] must be a mapping"),
        (RULE.format("{}, {actions: deny}"), "tools.a.rules[2] has the unknown key actions"),
        (RULE.format("{action: block}"), "rules[1].action must be 'allow' or 'deny', not 'block'"),
        (RULE.format("{action: deny, action: allow}"), "has the key action twice"),
        (RULE.format("{name: 1}"), "rules[1].name must be text"),
        (RULE.format("{reason: a, on_deny: b}"), "rules[1] has on_deny and reason, which are two words for one thing"),
        (RULE.format("{on_deny: [a]}"), "rules[1].on_deny must be text, not a list"),
        (RULE.format("{rate_limit: 10/week}"), "rules[1].rate_limit must be like 10/minute"),
        (RULE.format("{rate_limit: 0/day}"), "must be like 10/minute"),
        (RULE.format("{rate_limit: 1.5/day}"), "must be like 10/minute"),
        (RULE.format("{rate_limit: 10 /day}"), "must be like 10/minute"),
        (RULE.format("{rate_limit: 10}"), "rate_limit must be like 10/minute"),
        (
            RULE.format("{rate_limit: [10, 60]}"),
            "rate_limit must be like 10/minute (second, minute, hour or day) or {max: 10, window: 60}",
        ),
        (RULE.format("{rate_limit: {max: 10}}"), "rate_limit needs window"),
        (RULE.format("{rate_limit: {max: 10, window: 60, per: a}}"), "the unknown key per"),
        (
            RULE.format("{rate_limit: {max: 0, window: 60}}"),
            "rate_limit.max must be at least 1, not 0; to allow no call, use action: deny",
        ),
        (RULE.format("{rate_limit: {max: 1.5, window: 60}}"), "rate_limit.max must be a whole number"),
        (RULE.format("{rate_limit: {max: true, window: 60}}"), "rate_limit.max must be a whole number, not true"),
        (RULE.format("{rate_limit: {max: '1', window: 60}}"), "rate_limit.max must be a whole number, not '1'"),
        (RULE.format("{rate_limit: {max: 1, window: 0}}"), "rate_limit.window must be more than 0"),
        (RULE.format("{rate_limit: {max: 1, window: -1}}"), "rate_limit.window must be more than 0"),
        (RULE.format("{rate_limit: {max: 1, window: 1e9}}"), "rate_limit.window must be at most 31622400"),
        (RULE.format("{rate_limit: {max: 1, window: minute}}"), "rate_limit.window must be a number"),
        (
            RULE.format("{rate_limit: {max: 1, window: .inf}}"),
            "rate_limit.window is .inf, which is a number in some YAML",
        ),
        (RULE.format("{validate: true}"), "validate must be a mapping"),
        (RULE.format("{validate: {}}"), "validate needs required_args"),
        (RULE.format("{validate: {required: true}}"), "the unknown key required"),
        (RULE.format("{validate: {required_args: all}}"), "required_args must be true, false or a list of names"),
        (RULE.format("{validate: {required_args: {a: b}}}"), "required_args must be true, false or a list of names"),
        (RULE.format("{validate: {required_args: [1]}}"), "required_args[1] must be text"),
        (RULE.format("{conditions: {}}"), "conditions must be a list"),
        ("<<: {default: deny}", "the unknown key <<"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name_and_the_fault(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as error:
        policy(text)
    assert str(error.value).startswith("/etc/nanobanana/policy.yaml")
    assert said in str(error.value)


def test_of_several_faults_the_first_in_the_file_is_named() -> None:
    with pytest.raises(PolicyError, match=r"policy\.yaml, line 3: tools\.a\.rules\[1\] has the unknown key act"):
        policy("tools:\n  a:\n    rules: [{act: deny}]\n  b: {rules: 1}\nhide: 1\ndefault: no way\n")


def test_the_errors_are_ones_that_callers_know() -> None:
    assert issubclass(PolicyError, SetupError)
    assert issubclass(PolicyViolation, NotAllowed)


def test_a_calendar_window_starts_and_resets_on_the_clock() -> None:
    minute = Limit(key="a#1", maximum=1, window_s=60.0, rolling=False)
    day = Limit(key="a#1", maximum=1, window_s=86_400.0, rolling=False)
    before = NOON - 2**-22
    assert before < NOON
    for now, start in ((NOON, NOON), (NOON + 59.999, NOON), (before, NOON - 60), (NOON + 60, NOON + 60)):
        assert minute.window_start(now) == start
        assert minute.resets_at(now, oldest=now) == start + 60
    assert day.window_start(NOON) == NOON - 43_200
    assert day.resets_at(NOON, oldest=NOON) == NOON + 43_200


def test_a_rolling_window_forgets_a_call_exactly_when_it_is_as_old_as_the_window() -> None:
    limit = Limit(key="a#1", maximum=1, window_s=90.0, rolling=True)
    made = NOON + 0.25
    reset = limit.resets_at(NOON + 30, oldest=made)
    assert reset == made + 90
    assert made < limit.window_start(reset)
    assert made >= limit.window_start(reset - 2**-21)
    assert made >= limit.window_start(made)


@settings(derandomize=True, deadline=None)
@given(
    now=st.integers(0, 2**41).map(lambda ms: ms / 1024),
    window=st.integers(1, 366 * 86_400),
    rolling=st.booleans(),
)
def test_a_call_counts_until_its_window_resets_and_not_after(now: float, window: int, rolling: bool) -> None:
    limit = Limit(key="a#1", maximum=1, window_s=float(window), rolling=rolling)
    reset = limit.resets_at(now, oldest=now)
    assert limit.window_start(now) <= now < reset <= now + window
    assert limit.window_start(reset) > now


def test_a_used_up_limit_says_the_numbers_and_when_it_resets() -> None:
    calendar = Limit(
        key="a#2", maximum=10, window_s=60.0, rolling=False, rule="rule 2 of policy.yaml", on_deny="Wait for it."
    )
    now = NOON + 60 * 60 * 2 + 60 * 4 + 26
    assert calendar.message("generate_image", 10, now, now + 34) == (
        "generate_image is limited to 10 calls a minute by rule 2 of policy.yaml; 10 were made; "
        "it resets in 34 s at 14:05:00 UTC. Wait for it."
    )
    rolling = Limit(key="*#1", maximum=1, window_s=90.5, rolling=True, rule="rule 1 for every tool of policy.yaml")
    assert rolling.message("edit_image", 1, NOON, NOON + 43_200.2) == (
        "edit_image and all other tools together are limited to 1 call in any 90.5 seconds by rule 1 for every tool "
        "of policy.yaml; 1 was made; it resets in 12.0 h at 00:00:01 UTC on 2023-11-16."
    )


def test_a_project_adds_its_denials_hidden_tools_and_limits_to_those_of_the_user() -> None:
    user = policy("hide: [upload]\ntools: {a: {rules: [{rate_limit: 10/day}]}}")
    project = Policy.parse(
        "default: deny\nhide: [cleanup]\ntools: {a: {rules: [{rate_limit: 99/day}]}}", source="/repo/policy.yaml"
    )
    both = tighten(user, project)
    assert [(limit.key, limit.maximum) for limit in both.judge("a", {}, required=()).limits] == [
        ("a#1", 10),
        ("a#1@/repo/policy.yaml", 99),
    ]
    assert (both.hidden("upload"), both.hidden("cleanup"), both.hidden("a")) == (True, True, False)
    assert both.judge("b", {}, required=()).rule == "default of the project's policy.yaml"


OPERANDS = {"eq": 1, "neq": 1, "in": [1, 2], "not_in": [2], "lte": 2, "gt": 0, "exists": True, "contains": "c"}
CONDITION_VALUES = st.builds(
    lambda name, op: {"path": f"args.{name}", "op": op, "value": OPERANDS[op]},
    st.sampled_from(["n", "prompt"]),
    st.sampled_from(sorted(OPERANDS)),
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["allow", "deny"]),
        "conditions": st.lists(CONDITION_VALUES, max_size=2),
        "rate_limit": st.sampled_from(["10/minute", {"max": 5, "window": 30}]),
        "validate": st.sampled_from([{"required_args": True}, {"required_args": ["n"]}]),
        "on_deny": st.just("No."),
    },
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "default": st.sampled_from(["allow", "deny"]),
        "hide": st.lists(st.sampled_from(["a", "b"]), max_size=1),
        "tools": st.dictionaries(
            st.sampled_from(["a", "b", "*"]), st.fixed_dictionaries({"rules": st.lists(RULES, max_size=2)})
        ),
    },
)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    documents=st.tuples(POLICIES, POLICIES),
    tool=st.sampled_from(["a", "b", "c"]),
    args=st.fixed_dictionaries({}, optional={"n": st.sampled_from([0, 1, 3, "1", None]), "prompt": st.just("cat")}),
)
def test_a_tightened_policy_allows_exactly_what_both_allow(
    documents: tuple[dict[str, object], dict[str, object]], tool: str, args: dict[str, object]
) -> None:
    user, project = (Policy.parse(json.dumps(document), source="policy.yaml") for document in documents)
    both = tighten(user, project)
    one, other, verdict = (each.judge(tool, args, required=["prompt"]) for each in (user, project, both))
    assert verdict.allowed is (one.allowed and other.allowed)
    assert both.hidden(tool) is (user.hidden(tool) or project.hidden(tool))
    assert len(verdict.limits) == (len(one.limits) + len(other.limits) if verdict.allowed else 0)
    assert len({limit.key for limit in verdict.limits}) == len(verdict.limits)
    assert bool(verdict.message) is not verdict.allowed
