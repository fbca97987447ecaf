import dataclasses
import math

import pytest

from scheduler.errors import BadRules
from scheduler.hotpath import ApplyPlus, DigestValidity, NoChange, NoChangeReason, TelemetryDigest, TelemetryRing
from scheduler.hotpath.telemetry import DIGEST_BYTES, DigestRules, validate

DIGEST = TelemetryDigest(100, 1.0, 10, 1_000, 3)
RULES = DigestRules(settle_time_us=100, max_age_us=500, max_skew_us=50)


@pytest.mark.parametrize(
    ("digest", "applied_us", "now_us", "validity"),
    [
        (DIGEST, 900, 1_000, "valid"),
        (DIGEST, 901, 1_000, "settling"),
        (DIGEST, 0, 1_500, "valid"),
        (DIGEST, 0, 1_501, "too_old"),
        (dataclasses.replace(DIGEST, config_generation=2), 0, 9_999, "wrong_generation"),
        (DIGEST, 0, 950, "valid"),
        (DIGEST, 0, 949, "future"),
        (dataclasses.replace(DIGEST, objective_value=math.nan), 0, 1_000, "invalid"),
        (dataclasses.replace(DIGEST, objective_value=math.nan, config_generation=2), 0, 1_000, "invalid"),
        (dataclasses.replace(DIGEST, sample_count=0), 0, 1_000, "invalid"),
        (dataclasses.replace(DIGEST, error_rate=math.inf), 0, 1_000, "invalid"),
        (dataclasses.replace(DIGEST, since_apply_us=99), 0, 1_000, "settling"),
        (dataclasses.replace(DIGEST, since_apply_us=100), 999, 1_000, "valid"),
        (DIGEST, None, 1_000, "valid"),
    ],
)
def test_a_digest_is_believed_when_it_is_of_this_generation_settled_and_fresh(digest, applied_us, now_us, validity):
    assert validate(digest, 3, applied_us, now_us, RULES) is DigestValidity(validity)


def test_digests_of_an_old_generation_are_counted_and_not_used(bench):
    loop = bench()
    loop.until(ApplyPlus)
    assert loop.steps(5, config_generation=0) == [NoChange(NoChangeReason.AWAITING_SAMPLES)] * 5
    assert loop.engine.validities[DigestValidity.WRONG_GENERATION] == 5
    assert loop.engine.spsa_state().accumulated == ()


def test_an_objective_that_is_no_number_is_refused_by_name(bench):
    loop = bench()
    loop.until(ApplyPlus)
    assert loop.step(objective_value=math.nan) == NoChange(NoChangeReason.INVALID_DIGEST)
    assert loop.engine.validities[DigestValidity.INVALID] == 1
    assert loop.engine.spsa_state().accumulated == ()


def test_a_ring_keeps_the_newest_and_counts_what_it_loses():
    ring = TelemetryRing(3)
    for timestamp_us in (1, 2, 3, 4):
        ring.push(dataclasses.replace(DIGEST, timestamp_us=timestamp_us))
    assert [digest.timestamp_us for digest in ring] == [2, 3, 4]
    assert (ring.drop_count, len(ring)) == (1, 3)
    ring.clear()
    assert (ring.drop_count, len(ring)) == (1, 0)
    with pytest.raises(BadRules, match="capacity"):
        TelemetryRing(0)


def test_a_ring_hands_out_what_is_valid():
    ring = TelemetryRing()
    for generation in (2, 3, 3):
        ring.push(dataclasses.replace(DIGEST, config_generation=generation))
    assert len(ring.collect_valid(lambda digest: validate(digest, 3, 0, 1_000, RULES))) == 2


@pytest.mark.parametrize(
    "digest",
    [DIGEST, TelemetryDigest(1, -2.5, 3, 2**63, 5, 1e6, 10.5, 0.01, -0.3, 2**60, 17)],
)
def test_a_digest_fits_into_128_bytes_and_survives_them(digest):
    assert len(digest.pack()) == DIGEST_BYTES == 88 <= 128
    assert TelemetryDigest.unpack(digest.pack()) == digest
