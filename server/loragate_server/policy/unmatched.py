"""Rules of a policy that speak about no concept of the library, told before anybody relies on them.

A rule may be ahead of a library to which its concept is added later, so this is told and not
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loragate_server.policy.policy import Policy, Rule, Subject

MAX_NAMES_SHOWN = 12


def unmatched(policy: Policy, forbidden: Sequence[Subject]) -> tuple[str, ...]:
    """One line for each name in a rule that no forbidden concept of the library has.

    Args:
        policy: whose rules are looked at, in their order.
        forbidden: the concepts that adapters are asked about.
    """
    return tuple(line for rule in policy.rules for line in _of_rule(rule, forbidden))


def _of_rule(rule: Rule, forbidden: Sequence[Subject]) -> Iterator[str]:
    strangers = False
    for wanted, kind, there in (
        (rule.concepts, "id", {each.concept_id for each in forbidden}),
        (rule.categories, "category", {each.category for each in forbidden}),
        (rule.severities, "severity", {each.severity for each in forbidden}),
    ):
        for name in sorted(wanted - there):
            strangers = True
            yield (
                f"rule {rule.name}: no forbidden concept of the library has {kind} {name!r}; "
                f"there are {_listed(there)}"
            )
    if not strangers and not any(rule.matches(each) for each in forbidden):
        yield (
            f"rule {rule.name}: no forbidden concept of the library has all that it asks for; "
            "concepts, categories and severities have to hold of one concept together"
        )


def _listed(names: set[str]) -> str:
    more = len(names) - MAX_NAMES_SHOWN
    return ", ".join(sorted(names)[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
