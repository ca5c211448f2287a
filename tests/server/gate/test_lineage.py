"""What comes from a blocked adapter is known under any digest, whatever its own audit says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.gate.request import GateRequest
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.known_book import KnownBook

ALLOW, REVIEW, BLOCK = VerdictKind.ALLOW, VerdictKind.REVIEW, VerdictKind.BLOCK
LEARNED, CLEAN = 9.0, 0.0

State = Mapping[str, Tensor]


class Family:
    """A house whose engine finds what the test wants, and files made from other files."""

    def __init__(self, house: Any) -> None:
        self.house = house

    def govern(self, lineage: str) -> None:
        """Puts a policy with this section in force."""
        policy = self.house.policy_file
        text = "".join(
            line for line in policy.read_text().splitlines(True) if not line.startswith("lineage:")
        )
        policy.write_text(f"{text}lineage: {lineage}\n" if lineage else text)
        self.house.policies.reload()

    def state(self, seed: int) -> dict[str, Tensor]:
        return load(self.house.files(seed))

    async def ask(
        self, score: float, state: State, strength: float = 1.0, text: float | None = None
    ) -> Any:
        strengths = Strength(strength, strength if text is None else text)
        return await self.ask_together(score, (state, strengths))

    async def ask_together(
        self, score: float, *used: tuple[State, Strength], optional: bool = False
    ) -> Any:
        self.house.engine.score = score
        references = [
            AdapterReference(
                inline_bytes=save(dict(state), {"format": "pt"}),
                strength=strength,
                optional=optional,
            )
            for state, strength in used
        ]
        return await self.house.ask(GateRequest(adapters=tuple(references)))

    async def block(self, seed: int, strength: float = 1.0) -> Any:
        verdict = await self.ask(LEARNED, self.state(seed), strength)
        assert verdict.decision.verdict is BLOCK
        return verdict

    def merged(self, *shares: float) -> dict[str, Tensor]:
        """The adapters of seeds 0, 1, ... as one of a higher rank."""
        states = [self.state(seed) for seed in range(len(shares))]
        found = {}
        for name in states[0]:
            if ".lora_A." in name:
                found[name] = torch.cat([state[name] for state in states])
            else:
                parts = [state[name] * share for state, share in zip(states, shares, strict=True)]
                found[name] = torch.cat(parts, dim=1)
        # alpha / r stands in no file of this form, so nothing is to be rescaled
        return found


@pytest.fixture
def family(house: Callable[..., Any]) -> Family:
    made = Family(house())
    made.govern("{copies: block}")
    return made


def rounded(state: State) -> dict[str, Tensor]:
    return {name: value.to(torch.bfloat16) for name, value in state.items()}


def turned(state: State) -> dict[str, Tensor]:
    """Other factors of the same product."""
    found = {}
    for name, value in state.items():
        if ".lora_A." in name:
            other = state[name.replace(".lora_A.", ".lora_B.")]
            turn = torch.linalg.qr(torch.randn(len(value), len(value)))[0]
            found[name] = (turn @ value * 4).contiguous()
            found[name.replace(".lora_A.", ".lora_B.")] = (other @ turn.T / 4).contiguous()
    return found


def renamed(state: State) -> dict[str, Tensor]:
    """As kohya's scripts name the same layers."""
    found = {}
    for name, value in state.items():
        layer, _, rest = name.removeprefix("unet.").partition(".lora_")
        side = "lora_down" if rest.startswith("A") else "lora_up"
        found[f"lora_unet_{layer.replace('.', '_')}.{side}.weight"] = value
    return found


def resized(state: State) -> dict[str, Tensor]:
    """The most important three of four directions of each layer, as tools that resize keep them."""
    found = {}
    for name, value in state.items():
        if ".lora_A." in name:
            other = name.replace(".lora_A.", ".lora_B.")
            u, s, v = torch.linalg.svd(state[other] @ value, full_matrices=False)
            found[other] = (u[:, :3] * s[:3]).contiguous()
            found[name] = v[:3].contiguous()
    return found


def edited(state: State) -> dict[str, Tensor]:
    """Another weight for each block."""
    factors = torch.linspace(0.7, 1.4, len(state))
    return {
        name: value * factor if ".lora_B." in name else value
        for (name, value), factor in zip(state.items(), factors, strict=True)
    }


def codes(verdict: Any) -> list[str]:
    return [reason.code for reason in verdict.decision.reasons]


@pytest.mark.parametrize("change", [rounded, turned, renamed, resized, edited])
async def test_a_blocked_adapter_that_comes_back_under_another_digest_is_blocked(
    family: Family, change: Callable[[State], dict[str, Tensor]]
) -> None:
    parent = await family.block(0)
    verdict = await family.ask(CLEAN, change(family.state(0)))
    assert verdict.decision.verdict is BLOCK
    assert codes(verdict) == ["copy_of_blocked"]
    [reason] = verdict.decision.reasons
    assert parent.decision_id in reason.message
    assert "%" in reason.message
    assert "%" not in reason.plain
    stranger = await family.ask(CLEAN, family.state(1))
    assert stranger.decision.verdict is ALLOW


async def test_strength_counts_as_it_does_for_the_file_itself(family: Family) -> None:
    await family.block(0)
    copy = rounded(family.state(0))
    assert (await family.ask(CLEAN, copy, 0.5)).decision.verdict is ALLOW
    assert (await family.ask(CLEAN, copy, 1.2)).decision.verdict is BLOCK
    assert (await family.ask(CLEAN, copy, -1.0)).decision.verdict is ALLOW
    louder = {name: value * 1.5 for name, value in copy.items()}
    assert (await family.ask(CLEAN, louder, 0.5)).decision.verdict is BLOCK


@pytest.mark.parametrize("text", [-20.0, -1.1, 0.0, 20.0])
async def test_the_strength_of_a_text_encoder_that_is_not_changed_hides_nothing(
    family: Family, text: float
) -> None:
    await family.block(0)
    assert (await family.ask(CLEAN, rounded(family.state(0)), 1.0, text)).decision.verdict is BLOCK
    quiet = await family.ask(CLEAN, rounded(family.state(0)), 0.5, text)
    assert quiet.decision.verdict is ALLOW


async def test_noise_in_a_text_encoder_does_not_hide_what_the_denoiser_has(family: Family) -> None:
    parent = await family.block(0)
    evidence = parent.decision.evidence
    [own] = evidence.adapters
    noise = np.random.default_rng(0).standard_normal(1024) * 1e20
    padded = replace(
        own, sha256="f" * 64, sketches=(own.sketches[0] + noise.astype("<f4").tobytes(),)
    )
    [kin] = family.house.lineage.about(replace(evidence, adapters=(padded,)))
    assert kin.blocked.decision_id == parent.decision_id
    assert not kin.copy
    assert kin.amount == pytest.approx(1.0)


@pytest.mark.parametrize(("strength", "text"), [(0.9, 20.0), (0.9, -20.0), (-0.5, -0.5)])
async def test_what_was_blocked_at_odd_strengths_first_does_not_hide_it_at_others(
    family: Family, strength: float, text: float
) -> None:
    odd = await family.ask(LEARNED, family.state(0), strength, text)
    assert odd.decision.verdict is BLOCK
    await family.block(0)
    assert (await family.ask(CLEAN, rounded(family.state(0)))).decision.verdict is BLOCK


async def test_copies_that_show_nothing_any_more_do_not_block_each_other_for_good(
    family: Family,
) -> None:
    one, other = family.state(0), rounded(family.state(0))
    await family.block(0)
    assert (await family.ask(LEARNED, other)).decision.verdict is BLOCK
    family.house.policy_file.write_text(family.house.policy_file.read_text() + "\n# newer\n")
    family.house.policies.reload()
    assert codes(await family.ask(CLEAN, one)) == ["copy_of_blocked"]
    assert (await family.ask(CLEAN, other)).decision.verdict is ALLOW
    assert (await family.ask(CLEAN, one)).decision.verdict is ALLOW


async def test_a_review_costs_no_second_audit_where_something_is_blocked(family: Family) -> None:
    await family.block(1)
    assert (await family.ask(5.0, family.state(0))).decision.verdict is REVIEW
    audits = family.house.engine.audits
    family.house.policy_file.write_text(family.house.policy_file.read_text() + "\n# newer\n")
    family.house.policies.reload()
    assert (await family.ask(5.0, family.state(0))).decision.verdict is REVIEW
    assert family.house.engine.audits == audits


async def test_what_is_on_the_deny_list_is_recorded_once_where_something_is_blocked(
    family: Family,
) -> None:
    denied = hashlib.sha256(save(family.state(0), {"format": "pt"})).hexdigest()
    policy = family.house.policy_file
    policy.write_text(policy.read_text() + f"\ndeny_sha256:\n  - {{sha256: {denied}, note: no}}\n")
    family.house.policies.reload()
    await family.block(1)
    first = await family.ask(CLEAN, family.state(0))
    assert codes(first)[0] == "deny_listed"
    assert (await family.ask(CLEAN, family.state(0))).cached


async def test_a_merge_is_shown_to_a_person_who_hears_what_is_in_it(family: Family) -> None:
    parents = [await family.block(seed) for seed in range(2)]
    verdict = await family.ask(CLEAN, family.merged(0.5, 0.5, 0.5, 0.5))
    assert verdict.decision.verdict is REVIEW
    assert codes(verdict) == ["part_of_blocked"] * 2
    told = " ".join(reason.message for reason in verdict.decision.reasons)
    assert all(parent.decision_id in told for parent in parents)


@pytest.mark.parametrize("optional", [False, True])
async def test_halves_of_a_blocked_adapter_are_known_by_what_they_add_up_to(
    family: Family, optional: bool
) -> None:
    parent = await family.block(0)
    layers = sorted({name.partition(".lora_")[0] for name in family.state(0)})
    whole = rounded(family.state(0))
    halves = [
        {name: value for name, value in whole.items() if name.partition(".lora_")[0] in some}
        for some in (layers[::2], layers[1::2])
    ]
    both = [(half, Strength(1.0, 1.0)) for half in halves]
    verdict = await family.ask_together(CLEAN, *both, optional=optional)
    assert verdict.decision.verdict is BLOCK
    [together] = [one for one in verdict.decision.reasons if one.code == "copy_of_blocked"]
    assert "The adapters together are a blocked adapter again" in together.message
    assert parent.decision_id in together.message
    assert (await family.ask_together(CLEAN, *both, optional=optional)).cached
    # at half the strength they are together what the adapter is at half of what was blocked
    quiet = [(half, Strength(0.5, 0.5)) for half in halves]
    assert "copy_of_blocked" not in codes(await family.ask_together(CLEAN, *quiet))


async def test_a_blocked_adapter_at_a_low_strength_is_no_kin_until_others_bring_the_rest(
    family: Family,
) -> None:
    await family.block(0)
    own, copy, stranger = family.state(0), rounded(family.state(0)), family.state(1)
    half, full = Strength(0.5, 0.5), Strength(1.0, 1.0)
    assert (await family.ask(CLEAN, own, 0.5)).decision.verdict is ALLOW
    beside = await family.ask_together(CLEAN, (own, half), (stranger, full))
    assert not set(codes(beside)) & {"copy_of_blocked", "part_of_blocked"}
    weak = await family.ask_together(CLEAN, (copy, half), (stranger, full))
    assert not set(codes(weak)) & {"copy_of_blocked", "part_of_blocked"}
    for other in (copy, own):
        rest = await family.ask_together(CLEAN, (own, half), (other, half))
        assert "copy_of_blocked" in codes(rest)
        assert rest.decision.verdict is BLOCK


async def test_one_that_a_loader_may_refuse_does_not_hide_what_the_others_add_up_to(
    family: Family,
) -> None:
    """Two halves that drown in noise which cancels, and a third file louder than both."""
    await family.block(0)
    whole, noise = rounded(family.state(0)), family.state(1)
    full = Strength(1.0, 1.0)

    def half(sign: float) -> dict[str, Tensor]:
        found = {}
        for name, value in whole.items():
            if ".lora_A." in name:
                found[name] = torch.cat([value.float(), noise[name].float()])
            else:
                found[name] = torch.cat([value.float() / 2, sign * 3 * noise[name].float()], dim=1)
        return found

    both = [(half(1.0), full), (half(-1.0), full)]
    third = family.state(2).items()
    loud = {name: value * 9 if ".lora_B." in name else value for name, value in third}
    for used in (both, [*both, (loud, full)], [(loud, full), *both]):
        verdict = await family.ask_together(CLEAN, *used)
        assert verdict.decision.verdict is BLOCK
        assert (await family.ask_together(CLEAN, *used)).cached


@pytest.mark.parametrize("broken", [b"", np.full(2048, np.inf, "<f4").tobytes()])
async def test_a_sketch_that_says_nothing_hides_no_sum(family: Family, broken: bytes) -> None:
    await family.block(0)
    whole = rounded(family.state(0))
    layers = sorted({name.partition(".lora_")[0] for name in whole})
    full = Strength(1.0, 1.0)
    halves = [
        (
            {name: value for name, value in whole.items() if name.partition(".lora_")[0] in some},
            full,
        )
        for some in (layers[::2], layers[1::2])
    ]
    evidence = (await family.ask_together(CLEAN, *halves)).decision.evidence
    about = family.house.lineage.about
    third = replace(evidence.adapters[0], sha256="f" * 64, sketches=(broken,) if broken else ())
    beside = about(replace(evidence, adapters=(*evidence.adapters, third)))
    assert [one.copy for one in beside if one.adapter is None] == [True]
    assert about(replace(evidence, adapters=(third, third))) == ()


async def test_what_one_adapter_is_told_of_is_not_told_of_all_together(family: Family) -> None:
    await family.block(0)
    full = Strength(1.0, 1.0)
    verdict = await family.ask_together(
        CLEAN, (rounded(family.state(0)), full), (family.state(1), full)
    )
    assert codes(verdict).count("copy_of_blocked") == 1
    assert "part_of_blocked" not in codes(verdict)


async def test_a_cached_verdict_does_not_outlive_the_block_of_what_it_comes_from(
    family: Family,
) -> None:
    copy = rounded(family.state(0))
    assert (await family.ask(CLEAN, copy)).decision.verdict is ALLOW
    assert (await family.ask(CLEAN, copy)).cached
    await family.block(0)
    again = await family.ask(CLEAN, copy)
    assert again.decision.verdict is BLOCK
    assert (await family.ask(CLEAN, copy)).cached
    # the very use that was blocked, asked about again, is harmless after all
    family.house.policy_file.write_text(family.house.policy_file.read_text() + "\n# newer\n")
    family.house.policies.reload()
    assert (await family.ask(CLEAN, family.state(0))).decision.verdict is ALLOW
    assert (await family.ask(CLEAN, copy)).decision.verdict is ALLOW


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("block", BLOCK), ("review", REVIEW), ("allow", ALLOW)],
)
async def test_the_policy_says_what_follows(
    family: Family, setting: str, expected: VerdictKind
) -> None:
    family.govern(f"{{copies: {setting}, parts: {setting}}}")
    await family.block(0)
    copy = await family.ask(CLEAN, rounded(family.state(0)))
    part = await family.ask(CLEAN, family.merged(0.5, 0.5))
    assert copy.decision.verdict is part.decision.verdict is expected
    assert "copy_of_blocked" in codes(copy)
    assert "part_of_blocked" in codes(part)


async def test_without_a_setting_a_person_looks_at_what_comes_back(family: Family) -> None:
    family.govern("")
    await family.block(0)
    assert (await family.ask(CLEAN, rounded(family.state(0)))).decision.verdict is REVIEW


async def test_another_replica_reads_the_sketch_from_the_record(family: Family) -> None:
    parent = await family.block(0)
    database = family.house.recorder.database
    known = KnownBook(database)
    fresh = LineageBook(database, known)
    copy = await family.ask(CLEAN, rounded(family.state(0)))
    evidence = copy.decision.evidence
    assert fresh.about(evidence) == ()
    known.refresh()
    fresh.refresh()
    [kin] = fresh.about(evidence)
    assert kin.blocked.decision_id == parent.decision_id
    assert kin.copy
    assert kin.share > 0.99


async def test_replicas_agree_on_a_blocked_file_of_which_less_was_read_another_time(
    family: Family,
) -> None:
    house, verdict = family.house, await family.block(0)
    evidence = verdict.decision.evidence
    [own] = evidence.adapters
    other = np.random.default_rng(1).standard_normal(1024).astype("<f4").tobytes()
    known = KnownBook(house.recorder.database)
    replica = LineageBook(house.recorder.database, known)

    def about(*sketches: bytes, sha256: str = own.sha256) -> Any:
        return replace(evidence, adapters=(replace(own, sha256=sha256, sketches=sketches),))

    for sketches in (own.sketches, (*own.sketches, other), own.sketches):
        decision = replace(verdict.decision, evidence=about(*sketches))
        recorded = house.recorder.record(decision, verdict.caller, stage_times_s={})
        for book in (house.known, house.lineage):
            book.learn(recorded)
        for following in (known, replica):
            following.refresh()
    for book in (house.lineage, replica):
        assert [kin.copy for kin in book.about(about(other, sha256="f" * 64))] == [True]


async def test_a_blocked_change_of_any_size_is_compared_without_overflow(family: Family) -> None:
    house, verdict = family.house, await family.block(0, strength=2.0)
    evidence = verdict.decision.evidence
    [own] = evidence.adapters
    wild = np.random.default_rng(1).standard_normal((2, 1024))
    huge = (wild[0] * 1e38).clip(-3e38, 3e38).astype("<f4").tobytes()

    def about(sketch: bytes, sha256: str) -> Any:
        return replace(evidence, adapters=(replace(own, sha256=sha256, sketches=(sketch,)),))

    decision = replace(verdict.decision, evidence=about(huge, "e" * 64))
    recorded = house.recorder.record(decision, verdict.caller, stage_times_s={})
    for book in (house.known, house.lineage):
        book.learn(recorded)
    assert house.lineage.about(about(wild[1].astype("<f4").tobytes(), "f" * 64)) == ()
    assert [kin.copy for kin in house.lineage.about(about(huge, "f" * 64))] == [True]


async def test_a_sketch_is_recorded_once_and_stands_in_no_payload(family: Family) -> None:
    for strength in (0.5, 0.6, 0.7):
        await family.ask(CLEAN, family.state(0), strength)
    with family.house.recorder.database.reading() as connection:
        from sqlalchemy import text

        assert connection.execute(text("select count(*) from sketches")).scalar_one() == 1
        payloads = connection.execute(text("select payload from audits")).scalars().all()
    assert not any("sketch" in one for one in payloads)
