"""The canonical program gives the same bits however the ticks are cut into calls, and compiles only when told."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from predictor_core import PredictorConfig, Program, WrongShape, decode_record, encode_records, executables
from predictor_core.canonical import lower

SECOND = 1_000_000_000
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled(monkeypatch):
    """The compilations that happen while the test runs: JAX's own, and those of programs."""
    seen = []
    compile_program = executables._compile

    def listen(event, duration, **_):
        if event == COMPILED:
            seen.append(event)

    def compile_and_count(*given):
        seen.append("program")
        return compile_program(*given)

    monkeypatch.setattr(executables, "_compile", compile_and_count)
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def histories(rng, assets, length):
    """Random walks of very different scale, some with a jump, and the times they happen at."""
    moves = rng.standard_t(3, (assets, length)) * 10.0 ** rng.integers(-3, 4, (assets, 1))
    times_ns = np.cumsum(rng.integers(1, 3 * SECOND, (assets, length)), 1)
    return np.cumsum(moves, 1) + 100, times_ns, times_ns + rng.integers(0, SECOND, (assets, length))


def calm(program, values, times_ns, arrivals_ns):
    """Everything in one call."""
    row_of = np.repeat(np.arange(len(values)), values.shape[1])
    rows, results = program.run(
        program.cold(len(values)), row_of, values.ravel(), times_ns.ravel(), arrivals_ns.ravel()
    )
    return rows, results.reshape(values.shape)


def wild(program, values, times_ns, arrivals_ns, rng):
    """In calls of random members, order, company and length; the states go through records between the calls."""
    assets, length = values.shape
    records = list(encode_records(program.cold(assets), program.layout_fingerprint))
    results = np.zeros(values.shape, program.result_dtype)
    done = np.zeros(assets, int)
    while (done < length).any():
        batch = rng.permutation(np.flatnonzero(done < length))[: rng.integers(1, assets + 1)]
        take = np.minimum(rng.integers(0, 12, len(batch)), length - done[batch])
        row_of = rng.permutation(np.repeat(np.arange(len(batch)), take))
        nth = np.array([np.count_nonzero(row_of[:at] == row) for at, row in enumerate(row_of)], int)
        asset, tick = batch[row_of], (done[batch][row_of] + nth).astype(int)
        rows = np.array([decode_record(records[a].tobytes(), program.layout_fingerprint) for a in batch])
        at = asset, tick
        rows, results[at] = program.run(rows, row_of, values[at], times_ns[at], arrivals_ns[at])
        for member, record in zip(batch, encode_records(rows, program.layout_fingerprint), strict=True):
            records[member] = record
        done[batch] += take
    rows = [decode_record(record.tobytes(), program.layout_fingerprint) for record in records]
    return np.array(rows), results


def test_rows_that_become_the_new_ones_in_their_places_are_the_same_and_the_others_stay(program):
    rng = np.random.default_rng(5)
    values, times_ns, arrivals_ns = histories(rng, 70, 20)
    rows, results = calm(program, values, times_ns, arrivals_ns)
    table = rng.integers(0, 2**32, (200, program.words), np.uint32).astype(program.dtype)
    others, places = table.copy(), rng.permutation(200)[:70]
    table[places] = program.cold(70)
    columns = np.repeat(np.arange(70), 20), values.ravel(), times_ns.ravel(), arrivals_ns.ravel()
    assert program.run_within(table, places, *columns).tobytes() == results.tobytes()
    others[places] = rows
    assert table.tobytes() == others.tobytes()
    with pytest.raises(WrongShape, match=r"places must lie in \[0, 200\)"):
        program.run_within(table, places + 200, *columns)


@pytest.mark.parametrize("seed", range(2))
def test_any_order_company_split_and_round_trip_gives_the_same_bytes(program, seed):
    rng = np.random.default_rng(seed)
    history = histories(rng, 150, 24)
    rows, results = calm(program, *history)
    wild_rows, wild_results = wild(program, *history, rng)
    assert wild_rows.tobytes() == rows.tobytes(), f"seed {seed}"
    assert wild_results.tobytes() == results.tobytes(), f"seed {seed}"


def test_toy_too_gives_the_same_bytes(toy_program, rng):
    history = histories(rng, 300, 20)
    rows, results = calm(toy_program, *history)
    wild_rows, wild_results = wild(toy_program, *history, rng)
    assert wild_rows.tobytes() == rows.tobytes()
    assert wild_results.tobytes() == results.tobytes()


def test_one_asset_alone_is_the_same_as_among_512(program, rng):
    history = histories(rng, 512, 10)
    rows, results = calm(program, *history)
    for asset in (0, 63, 64, 300, 511):
        alone, alone_results = calm(program, *(part[asset : asset + 1] for part in history))
        assert alone.tobytes() == rows[asset].tobytes()
        assert alone_results.tobytes() == results[asset].tobytes()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38, 1e300, 5e-324])
def test_neighbours_with_absurd_values_change_nothing(program, rng, poison):
    values, times_ns, arrivals_ns = histories(rng, 128, 12)
    rows, results = calm(program, values, times_ns, arrivals_ns)
    good = rng.random(128) < 0.5
    values[~good] = np.where(rng.random((np.count_nonzero(~good), 12)) < 0.5, poison, values[~good])
    poisoned, poisoned_results = calm(program, values, times_ns, arrivals_ns)
    assert poisoned[good].tobytes() == rows[good].tobytes()
    assert poisoned_results[good].tobytes() == results[good].tobytes()


def test_neighbours_with_random_words_for_a_state_change_nothing(program, rng):
    values, times_ns, _ = histories(rng, 128, 3)
    row_of = np.repeat(np.arange(128), 3)
    rows = program.cold(128)
    ticks = row_of, values.ravel(), times_ns.ravel(), times_ns.ravel()
    after, _ = program.run(rows, *ticks)
    rows[::2] = np.frombuffer(rng.bytes(rows[::2].nbytes), rows.dtype).reshape(rows[::2].shape)
    garbled, _ = program.run(rows, *ticks)
    assert garbled[1::2].tobytes() == after[1::2].tobytes()


def test_nothing_compiles_after_compile(toy_program, run_ticks, rng, compiled):
    made = toy_program.compilations
    for assets, ticks in ((1, 1), (2, 9), (64, 64), (65, 300), (500, 1000)):
        run_ticks(toy_program, toy_program.cold(assets), rng.integers(0, assets, ticks), rng.normal(size=ticks))
    for threshold in (2.0, 3.0):
        params = PredictorConfig(float_precision=toy_program.config.float_precision, cusum_h=threshold).params()
        _, results = run_ticks(toy_program, toy_program.cold(1), [0], [1.0], params=params)
        assert results["reference_prediction"] == 1 + threshold
    assert not compiled
    assert toy_program.compilations == made


def test_programs_of_equal_shapes_share_one_executable(make_toy_program, toy_program, compiled):
    other = make_toy_program(float_precision=toy_program.config.float_precision, cusum_k=0.7)
    other.compile()
    assert other.compilations == 0
    assert not compiled


def test_threads_that_want_the_same_program_compile_it_once(make_toy_program, compiled):
    programs = [make_toy_program(cusum_k=0.7, memory_size=512) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(Program.compile, programs))
    assert compiled == ["program"]
    assert sum(program.compilations for program in programs) == 1


def test_on_a_cpu_the_loops_are_one_function(make_toy_program):
    """Handed out one by one the kernels of a tick cost nearly half as much again, and no result would tell."""
    program = make_toy_program()
    program.compile()
    (module,) = program._executables[program.config.log_sig_depth]._loaded.hlo_modules()
    entry = module.to_string().partition("\nENTRY ")[2]
    assert (" while(" in entry) == (jax.default_backend() != "cpu"), entry


def test_every_depth_runs_on_the_same_rows(make_toy_program, run_ticks):
    program = make_toy_program()
    program.compile([2, 5])
    rows, shallow = run_ticks(program, program.cold(3), [0, 1, 2], [1.0, 2.0, 3.0], depth=2)
    rows, deep = run_ticks(program, rows, [0, 1, 2], [1.0, 2.0, 3.0], seconds=1, depth=5)
    assert (deep["events"] == 2).all()


def test_a_program_from_the_cache_is_not_compiled_and_gives_the_same_bits(
    make_toy_program, run_ticks, rng, tmp_path, monkeypatch, compiled
):
    values = rng.normal(size=100)
    digests = []
    for _ in range(2):
        monkeypatch.setattr(executables, "_made", {})  # as in a new process
        program = make_toy_program(cache_dir=tmp_path, cusum_k=0.9)
        program.compile()
        rows, results = run_ticks(program, program.cold(1), np.zeros(100), values)
        digests.append(rows.tobytes() + results.tobytes())
    assert program.compilations == 0
    assert len(compiled) == 1
    assert digests[0] == digests[1]


def test_a_damaged_cache_file_is_compiled_anew(make_toy_program, tmp_path, monkeypatch):
    for _ in range(2):
        monkeypatch.setattr(executables, "_made", {})
        program = make_toy_program(cache_dir=tmp_path)
        program.compile()
        assert program.compilations == 1
        (file,) = tmp_path.rglob("*.code")
        file.write_bytes(file.read_bytes()[:-1])


def test_a_cache_that_cannot_be_written_costs_no_more_than_a_warning(make_toy_program, tmp_path, monkeypatch):
    monkeypatch.setattr(executables, "_made", {})
    (tmp_path / "file").touch()
    program = make_toy_program(cache_dir=tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="was not kept"):
        program.compile()


def test_the_cache_keeps_the_newest_programs_only(make_toy_program, tmp_path, monkeypatch):
    monkeypatch.setattr(executables, "_made", {})
    for age in range(executables.KEPT_MAX + 3):
        (tmp_path / f"{age:016}").mkdir()
        os.utime(tmp_path / f"{age:016}", (age, age))
    program = make_toy_program(cache_dir=tmp_path)
    program.compile()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == executables.KEPT_MAX and program.fingerprint.hex() in kept
    assert f"{0:016}" not in kept and f"{executables.KEPT_MAX + 2:016}" in kept


SECOND_START = """
import hashlib, json, sys
import numpy as np
from predictor_core import PredictorConfig, Program
program = Program(PredictorConfig(), cache_dir=sys.argv[1])
program.compile()
ticks = np.arange(40)
rows, results = program.run(program.cold(1), ticks * 0, np.sin(ticks), ticks + 1, ticks + 1)
digest = hashlib.sha256(rows.tobytes() + results.tobytes()).hexdigest()
print(json.dumps([program.fingerprint.hex(), program.compilations, digest]))
"""


def test_a_second_process_starts_from_the_cache_with_the_same_bits(program):
    command = [sys.executable, "-c", SECOND_START, ".predictor/cache"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
    ticks = np.arange(40)
    rows, results = program.run(program.cold(1), ticks * 0, np.sin(ticks), ticks + 1, ticks + 1)
    digest = hashlib.sha256(rows.tobytes() + results.tobytes()).hexdigest()
    assert answer == [program.fingerprint.hex(), 0, digest]


def test_a_fingerprint_follows_the_source_that_the_program_is_made_of(tmp_path):
    files = {
        "root.py": "from . import near\nfrom .deep import (\n    inner,\n)",
        "near.py": "from .far import number",
        "far.py": "number = 1",
        "deep/__init__.py": "",
        "deep/inner.py": "from ..back import other",
        "back.py": "other = 2",
        "stranger.py": "from . import root",
    }
    (tmp_path / "deep").mkdir()

    def digest(**changes):
        for name, text in {**files, **changes}.items():
            (tmp_path / name).write_text(text)
        executables.sources.cache_clear()
        return executables.sources(str(tmp_path / "root.py"))

    base = digest()
    for name, text in files.items():
        assert (digest(**{name: text + "\n"}) == base) == (name == "stranger.py"), name
    assert digest() == base
    executables.sources.cache_clear()


def test_x64_is_left_as_the_user_had_it(toy_program, run_ticks):
    run_ticks(toy_program, toy_program.cold(1), [0], [1.0])
    assert not jax.config.jax_enable_x64
    assert jnp.asarray(1.0).dtype == np.float32


def test_times_and_values_keep_every_digit(toy_program):
    time_ns, value = np.array([2**62 + 1]), np.array([1 / 3])
    rows, results = toy_program.run(toy_program.cold(1), np.array([0]), value, time_ns, time_ns)
    assert results["timestamp_ns"] == 2**62 + 1
    assert results["reference_prediction"] == 1 / 3 + toy_program.config.cusum_h
    assert toy_program.last_times_ns(rows).tolist() == [2**62 + 1]


def test_ticks_of_one_row_are_taken_in_order_of_appearance(toy_program, run_ticks):
    row_of = [1, 0, 1, 1, 0]
    _, results = run_ticks(toy_program, toy_program.cold(2), row_of, [10.0, 1.0, 20.0, 60.0, 3.0])
    means = results["reference_prediction"] - toy_program.config.cusum_h
    assert means.tolist() == [10, 1, 15, 30, 2]
    assert results["events"].tolist() == [1, 1, 2, 3, 2]


def test_rows_in_another_order_of_memory_come_back_in_the_usual_one(toy_program):
    rows = toy_program.cold(3)
    new, _ = toy_program.run(np.asfortranarray(rows), np.arange(3), np.ones(3), np.full(3, 9), np.full(3, 9))
    assert new.flags.c_contiguous and new.tobytes() != rows.tobytes()


def test_one_busy_row_among_idle_ones_takes_as_many_executions_as_it_needs(toy_program, run_ticks, rng):
    row_of = np.full(200, 7)
    row_of[::50] = [1, 2, 3, 4]
    before = toy_program.cold(300)
    rows, results = run_ticks(toy_program, before, row_of, rng.normal(size=200))
    assert results["events"][row_of == 7].tolist() == list(range(1, 197))
    idle = np.setdiff1d(np.arange(300), row_of)
    assert rows[idle].tobytes() == before[idle].tobytes()


def test_what_came_back_stays_as_it_is_and_what_went_in_too(toy_program, run_ticks, rng):
    before = toy_program.cold(100)
    before.flags.writeable = False
    rows, results = run_ticks(toy_program, before, np.arange(100), rng.normal(size=100))
    kept = rows.tobytes(), results.tobytes()
    for _ in range(5):
        run_ticks(toy_program, rows, rng.permutation(100), rng.normal(size=100), seconds=9)
    assert (rows.tobytes(), results.tobytes()) == kept
    assert before.tobytes() == toy_program.cold(100).tobytes()


def test_an_execution_that_was_interrupted_spoils_nothing(toy_program, run_ticks, rng, monkeypatch):
    values = rng.normal(size=5)
    expected, _ = run_ticks(toy_program, toy_program.cold(5), np.arange(5), values)
    depth = toy_program.config.log_sig_depth
    run = toy_program._executables[depth]

    def interrupted(*arguments):
        run(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(toy_program._executables, depth, interrupted)
        run_ticks(toy_program, toy_program.cold(5), np.arange(5), values)
    rows, _ = run_ticks(toy_program, toy_program.cold(5), np.arange(5), values)
    assert rows.tobytes() == expected.tobytes()


def test_a_rejected_tick_leaves_every_bit_of_the_state_and_has_no_forecast(program, rng):
    history = histories(rng, 1, 50)
    rows, _ = calm(program, *history)
    now = int(history[1][0, -1])
    bad = [(1.0, now, now), (1.0, now - 1, now), (np.nan, now + 1, now + 1), (-np.inf, now + 1, now + 1)]
    bad.append((1.0, now + 3600 * SECOND, now))
    values, times_ns, arrivals_ns = (np.array(column) for column in zip(*bad, strict=True))
    after, results = program.run(rows, np.zeros(5, int), values, times_ns, arrivals_ns)
    assert after.tobytes() == rows.tobytes()
    assert results["rejected"].tolist() == [1, 1, 2, 2, 3]
    assert np.isnan(results["quantiles"]).all() and np.isnan(results["reference_prediction"]).all()
    assert not results["events"].any()


def test_no_ticks_change_nothing(toy_program):
    rows = toy_program.cold(3)
    nothing = np.zeros(0, np.int64)
    after, results = toy_program.run(rows, nothing, np.zeros(0), nothing, nothing)
    assert after.tobytes() == rows.tobytes() and len(results) == 0
    after, results = toy_program.run(rows[:0], nothing, np.zeros(0), nothing, nothing)
    assert after.shape == (0, toy_program.words)


def test_arrays_that_do_not_fit_are_refused(toy_program):
    rows, one = toy_program.cold(2), np.zeros(1, np.int64)
    for bad in (rows[:, :-1], rows[0], rows.astype(np.float32)):
        with pytest.raises(WrongShape, match="rows must be"):
            toy_program.run(bad, one, np.zeros(1), one, one)
    with pytest.raises(WrongShape, match="one length"):
        toy_program.run(rows, one, np.zeros(2), one, one)
    for row in (-1, 2):
        with pytest.raises(WrongShape, match="row_of"):
            toy_program.run(rows, one + row, np.zeros(1), one, one)


@pytest.mark.parametrize("setting", [{"log_sig_depth": 2}, {"log_sig_depth": 5}, {"float_precision": 64}])
def test_the_model_fits_the_program_in_every_shape(program, setting):
    other = Program(PredictorConfig(**setting))
    assert lower(other._canon) is not None
    same_rows = "float_precision" not in setting
    assert (other.layout_fingerprint == program.layout_fingerprint) == same_rows


def test_fingerprints_tell_apart_what_gives_other_bits(make_toy_program):
    base, traced = make_toy_program(), make_toy_program(cusum_h=3.0)
    assert (base.layout_fingerprint, base.fingerprint) == (traced.layout_fingerprint, traced.fingerprint)
    for setting in ({"float_precision": 64}, {"confidence_level": 0.9}, {"quantile_levels": (0.1, 0.5, 0.9)}):
        other = make_toy_program(**setting)
        assert other.layout_fingerprint != base.layout_fingerprint
        assert other.fingerprint != base.fingerprint
    deeper = make_toy_program(log_sig_depth=5)
    assert deeper.layout_fingerprint == base.layout_fingerprint
    real = Program(PredictorConfig())
    assert real.layout_fingerprint != base.layout_fingerprint
    assert len(base.fingerprint) == len(base.layout_fingerprint) == 8
