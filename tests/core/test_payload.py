"""Payloads are MessagePack that any reader understands, with every number exact."""

import msgpack
import numpy as np
import pytest

from predictor_core import PredictorConfig, Telemetry, encode_payloads, payload_fields

MADE_BY = b"\x00\xff12345\x00"


@pytest.fixture
def results(toy_program, rng):
    """Any bits at all in the floats, and the ends of every whole number."""
    results = np.frombuffer(rng.bytes(200 * toy_program.result_dtype.itemsize), toy_program.result_dtype).copy()
    results["operating_mode"] = rng.integers(0, 3, 200)
    for name, leaf in (("reference_prediction", "f8"), ("quantiles", "f8"), ("sigma", "f4"), ("weights", "f4")):
        for row, number in enumerate((np.nan, np.inf, -np.inf, -0.0, 1e38, 5e-324, -1.5)):
            results[name][row] = np.dtype(leaf).type(number)
    results["timestamp_ns"][:3] = (-(2**63), 2**63 - 1, -1)
    results["events"][:2] = (2**32 - 1, 0)
    return results


def as_dict(result, depth):
    telemetry = np.concatenate([np.atleast_1d(result[name]) for name in Telemetry._fields])
    return {
        "reference_prediction": float(result["reference_prediction"]),
        "confidence_lower": float(result["confidence_lower"]),
        "confidence_upper": float(result["confidence_upper"]),
        "quantiles": result["quantiles"].tolist(),
        "timestamp_ns": int(result["timestamp_ns"]),
        "operating_mode": int(result["operating_mode"]),
        "events": int(result["events"]),
        "depth": depth,
        "made_by": MADE_BY,
        "telemetry": telemetry.tolist(),
    }


def test_every_payload_is_the_messagepack_of_its_result(results):
    payloads = encode_payloads(results, 5, MADE_BY)
    for payload, result in zip(payloads, results, strict=True):
        expected = as_dict(result, 5)
        decoded = msgpack.unpackb(payload.tobytes())
        assert list(decoded) == list(expected)
        np.testing.assert_equal(decoded, expected)


def test_payloads_have_one_length_and_their_own_memory(toy_program, results):
    payloads = encode_payloads(results, 2, MADE_BY)
    before = payloads.tobytes()
    assert payloads.dtype == f"V{toy_program.payload_bytes}" and payloads.shape == (200,)
    results[:] = np.zeros((), results.dtype)
    encode_payloads(results, 3, bytes(8))
    assert payloads.tobytes() == before


def test_no_results_no_payloads(results):
    assert encode_payloads(results[:0], 2, MADE_BY).shape == (0,)


def test_a_fingerprint_of_another_length_is_refused(results):
    with pytest.raises(AssertionError):
        encode_payloads(results, 2, b"short")


def test_fields_name_every_number(results):
    config = PredictorConfig()
    fields = payload_fields(config)
    decoded = msgpack.unpackb(encode_payloads(results, 2, MADE_BY)[9].tobytes())
    assert len(fields["quantile_levels"]) == len(decoded["quantiles"])
    assert len(fields["telemetry"]) == len(decoded["telemetry"])
    by_name = dict(zip(fields["telemetry"], decoded["telemetry"], strict=True))
    np.testing.assert_equal(by_name["sigma"], float(results["sigma"][9]))
    np.testing.assert_equal([by_name[f"weights_{k}"] for k in "abcd"], results["weights"][9].tolist())
    assert msgpack.unpackb(msgpack.packb(fields)) == fields
