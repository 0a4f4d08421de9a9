"""The link's RTL against its model: the same answers, byte for byte, and the same effects on the ring."""

from __future__ import annotations

import random

import pytest

from hw.layouts import Space
from hw.link.packets import ANSWER, FIELDS, HEADER, REQUEST, Command, LinkConfig, Status, packet, unpack
from tests.link.bench import CONFIG, LINK, SILENCE, Bench
from tests.link.device_model import DeviceModel, RingModel
from tests.link.requests import CHANNELS, SESSION, elements, load, mutate, read, request, start, valid

STALLS = ("none", "random", "bursty")


def expected(script, ring: RingModel | None = None) -> tuple[bytes, list]:
    """The model's answers and effects."""
    answers, ring = bytearray(), ring or RingModel(CONFIG)
    device = DeviceModel(CONFIG, LINK, ring, answers.extend)
    for item in script:
        device.silence() if item is SILENCE else device.feed(item)
    device.silence()
    return bytes(answers), ring.effects


def check(script, stalls: str = "none", seed: int = 0, **ring) -> tuple[list[tuple[int, int]], list]:
    """RTL and model agree. Returns (status, sequence) of each answer, and the effects."""
    bench = Bench(script, stalls=stalls, seed=seed, ring=RingModel(CONFIG, **ring)).simulate()
    answers, effects = expected(script, RingModel(CONFIG, **ring))
    assert bytes(bench.answers) == answers
    assert bench.ring.effects == effects
    return outcomes(answers), effects


def outcomes(answers: bytes) -> list[tuple[int, int]]:
    """(status, sequence) of each answer."""
    result = []
    while answers:
        assert answers[:2] == ANSWER.to_bytes(2, "little")
        header = unpack(HEADER, answers[2:])
        result.append((Status(header["code"]), header["sequence"]))
        answers = answers[12 + (header["length"] + 4 if header["length"] else 0):]
    return result


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("seed", range(3))
def test_valid_packets(stalls, seed):
    """Each is answered OK, in order, whatever the back-pressure."""
    script = valid(random.Random(seed), 24)
    answers, effects = check(script, stalls, seed)
    assert answers == [(Status.OK, i) for i in range(len(script))]
    assert {e[0] for e in effects} == {"reset", "load", "run", "frame"}


def test_identify_needs_no_session_and_changes_nothing():
    script = [request(Command.IDENTIFY, 9, session=0), *start(), request(Command.IDENTIFY, 77, session=1),
              load(random.Random(0), 2)]
    answers, _ = check(script)
    assert answers == [(Status.OK, s) for s in (9, 0, 1, 77, 2)]


@pytest.mark.parametrize("stalls", STALLS)
def test_repeated_packets_are_executed_once(stalls):
    rng = random.Random(1)
    packets = valid(rng, 20)
    script = [p for p in packets for _ in range(rng.choice((1, 2, 3)))]
    answers, effects = check(script, stalls)
    assert len(answers) == len(script)
    assert [s for s, _ in answers] == [Status.OK] * len(script)
    assert effects == expected(packets)[1]


def test_repeated_changes_are_sent_in_full():
    """The first answer may have been lost, and with it what the mirror took over."""
    def of(*packets: bytes) -> int:
        return len(expected([*start(), *packets])[0])

    first, second = (read(random.Random(0), sequence, Command.CHANGES) for sequence in (2, 3))
    check([*start(), first, second, second])
    full = of(read(random.Random(0), 2, Command.COPY)) - of()
    assert of(first, second) - of(first) < full
    assert of(first, second, second) - of(first, second) == full


def single_bit_errors(sample: bytes):
    for bit in range(8 * len(sample)):
        damaged = bytearray(sample)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def sample_packet(kind: str, sequence: int) -> bytes:
    """Short packets whose execution shows on the ring."""
    if kind == "load":
        return request(Command.LOAD, sequence, b"\1\2", space=Space.CODEBOOK, units=1, words=1,
                       address=sequence)
    return request(Command.RUN, sequence, first=1, count=1)


@pytest.mark.parametrize("kind, part", [("load", 0), ("load", 1), ("run", 0), ("run", 1)])
def test_every_single_bit_error(kind, part):
    """A damaged packet has no effect and the next good one has its own, once."""
    script, good = start(), []
    for i, damaged in enumerate(single_bit_errors(sample_packet(kind, 0))):
        if i % 2 == part:
            sequence = 2 + len(good)
            flips = bytes(a ^ b for a, b in zip(damaged, sample_packet(kind, 0), strict=True))
            good.append(sample_packet(kind, sequence % 256))
            script += [bytes(a ^ b for a, b in zip(good[-1], flips, strict=True)), SILENCE, good[-1]]
    answers, effects = check(script)
    assert effects == expected([*start(), *good])[1]
    assert [a for a in answers if a[0] == Status.OK] == [(Status.OK, i % 256) for i in range(2 + len(good))]
    assert {s for s, _ in answers} >= {Status.OK, Status.DAMAGED}


def test_truncation_at_every_length():
    """A packet that ends too early has no effect; the device recovers after the timeout."""
    script, good = start(), []
    for length in range(len(sample_packet("load", 0))):
        good.append(sample_packet("load", 2 + len(good)))
        script += [good[-1][:length], SILENCE, good[-1]]
    answers, effects = check(script)
    assert effects == expected([*start(), *good])[1]
    assert [s for s, _ in answers].count(Status.TRUNCATED) == len(good) - 2


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("seed", range(2))
def test_garbage_between_packets(stalls, seed):
    """Bytes that hold no sync word do nothing; with one, the device is deaf until the line is silent."""
    rng, packets = random.Random(seed), valid(random.Random(seed), 10)
    sync = REQUEST.to_bytes(2, "little")
    quiet, loud = [], []
    for p in packets:
        quiet += [rng.randbytes(rng.randrange(30)).replace(sync, b"") + rng.choice((b"", sync[:1] * 3))
                  .replace(sync, b""), b"\0", p]
        loud += [rng.randbytes(3) + sync + rng.randbytes(rng.randrange(30)), SILENCE, p]
    answers, effects = check(quiet, stalls, seed)
    assert answers == [(Status.OK, i) for i in range(len(packets))]
    answers, again = check(loud, stalls, seed)
    assert effects == again == expected(packets)[1]
    assert [a for a in answers if a[0] == Status.OK] == [(Status.OK, i) for i in range(len(packets))]


@pytest.mark.parametrize("script, status", [
    ([packet(REQUEST, code=99, sequence=2, session=SESSION)], Status.UNKNOWN),
    ([packet(REQUEST, bytes(4), code=9, sequence=2, session=SESSION)], Status.UNKNOWN),
    ([request(Command.LOAD, 2, bytes(1), space=Space.CODEBOOK, units=1, words=1)], Status.MALFORMED),
    ([request(Command.LOAD, 2, bytes(3), space=Space.CODEBOOK, units=1, words=1)], Status.MALFORMED),
    ([request(Command.LOAD, 2, space=Space.CODEBOOK, units=0, words=1)], Status.MALFORMED),
    ([request(Command.LOAD, 2, space=Space.CODEBOOK, units=1, words=0)], Status.MALFORMED),
    ([request(Command.LOAD, 2, bytes(8), space=Space.PROJECTIONS, units=1, words=1)], Status.MALFORMED),
    ([request(Command.LOAD, 2, bytes(8), space=200, units=1, words=1)], Status.MALFORMED),
    ([request(Command.READ, 2, space=Space.WEIGHTS, units=1, words=1)], Status.MALFORMED),
    ([request(Command.READ, 2, space=Space.SNAPSHOTS, units=255, words=65535)], Status.MALFORMED),
    ([request(Command.INPUT, 2, bytes(2), width=3, channels=3)], Status.MALFORMED),
    ([request(Command.INPUT, 2, width=3, channels=0)], Status.MALFORMED),
    ([request(Command.INPUT, 2, bytes(9), width=3, channels=9)], Status.MALFORMED),
    ([request(Command.RUN, 2, bytes(5), count=1, frame={"elements": 6})], Status.MALFORMED),
    ([request(Command.RUN, 2, bytes(7), count=1, frame={"elements": 6})], Status.MALFORMED),
    ([request(Command.FRAME, 2, bytes(7), elements=6)], Status.MALFORMED),
    ([packet(REQUEST, bytes(LINK.buffer_bytes + 1), code=2, sequence=2, session=SESSION)], Status.TOO_LONG),
    ([packet(REQUEST, code=Command.LOAD, sequence=2, session=SESSION)], Status.MALFORMED),
    ([request(Command.RUN, 2, count=1, session=SESSION + 1)], Status.SESSION),
    ([request(Command.RUN, 2, count=1, session=0)], Status.SESSION),
    ([request(Command.RUN, 3, count=1)], Status.SEQUENCE),
    ([request(Command.RUN, 0, count=1)], Status.SEQUENCE),
])
def test_packets_that_are_refused(script, status):
    """They have no effect, and what follows is served. A refused packet uses up its sequence number only when
    it was admitted."""
    sequence = 2 if status in (Status.TOO_LONG, Status.SESSION, Status.SEQUENCE) else 3
    follow = [SILENCE, load(random.Random(3), sequence)]
    answers, effects = check([*start(), *script, *follow])
    assert answers[2][0] == status
    assert answers[3] == (Status.OK, sequence)
    assert effects == expected([*start(), load(random.Random(3), 2)])[1]


@pytest.mark.parametrize("length", range(max(f.size for f in FIELDS.values() if f) // 8))
def test_short_payloads(length):
    packets = [packet(REQUEST, bytes(length), code=c, sequence=2 + i, session=SESSION)
               for i, c in enumerate(c for c in Command if FIELDS[c] and FIELDS[c].size // 8 > length)]
    answers, effects = check([*start(), *packets])
    assert [s for s, _ in answers[2:]] == [Status.MALFORMED] * len(packets)
    assert effects == expected(start())[1]


def test_elements_before_input_are_refused():
    script = [start()[0], request(Command.RUN, 1, bytes(6), count=1, frame={"elements": 6})]
    answers, effects = check(script)
    assert answers[1][0] == Status.MALFORMED
    assert effects == [("reset",)]


@pytest.mark.parametrize("stalls", STALLS)
def test_long_runs_are_waited_for_again(stalls):
    """BUSY means that the run goes on; the packet's number waits on. Nothing else may be done meanwhile."""
    run = request(Command.RUN, 2, first=1, count=1, frame={"wait": 1})
    wait = packet(REQUEST, code=Command.RUN, sequence=2, session=SESSION)
    script = [*start(), run, wait, run, read(random.Random(0), 3, Command.READ), request(Command.RESET, 4),
              request(Command.RUN, 5, first=0, count=0), request(Command.RESET, 5, session=77)]
    answers, effects = check(script, stalls, never_done=True)
    assert [s for s, _ in answers] == [Status.OK] * 2 + [Status.BUSY] * 3 + [Status.RUNNING] + [Status.OK] * 3
    assert [e[0] for e in effects] == ["reset", "run", "reset", "run", "reset"]


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("case", ["run without frame", "frame without run", "too few bytes",
                                  "too many bytes"])
def test_stalls_end_the_session(case, stalls):
    """Elements that nobody takes, or that do not come: the ring is reset, and the host has to begin anew."""
    data, part = bytes([1, 0x0F, 1, 2, 3, 4]), {"changes": 1, "elements": 6, "end": 1, "wait": 1}
    script = {"run without frame": [request(Command.RUN, 2, data, first=1, count=1, frame=part)],
              "frame without run": [request(Command.FRAME, 2, data, **part)],
              "too few bytes": [request(Command.RUN, 2, data[:-1], count=1, frame=part)],
              "too many bytes": [request(Command.RUN, 2, data + b"1", count=1, frame=part)]}[case]
    again = [request(Command.RESET, 2),
             request(Command.INPUT, 3, bytes(CHANNELS), width=3, channels=CHANNELS),
             request(Command.RUN, 4, elements(random.Random(0), 12, False), first=0, count=1,
                     frame={"elements": 12, "end": 1, "wait": 1})]
    answers, effects = check([*start(), *script, *script, *again], stalls)
    assert [s for s, _ in answers] == [Status.OK] * 2 + [Status.STALLED, Status.SESSION] + [Status.OK] * 3
    assert [e[0] for e in effects].count("reset") == 3


@pytest.mark.parametrize("seed", range(6))
def test_a_bad_line(seed):
    """Anything may happen to a packet; repeated until it is answered, it is executed once."""
    rng = random.Random(seed)
    packets = valid(rng, 16)
    script = [item for p in packets for item in mutate(rng, p)]
    answers, effects = check(script, rng.choice(STALLS), seed)
    assert effects == expected(packets)[1]
    assert {i for s, i in answers if s == Status.OK} >= set(range(len(packets)))


@pytest.mark.parametrize("field, value", [("buffer_bytes", 63), ("buffer_bytes", 1 << 16),
                                          ("mirror_bytes", 0), ("input_channels", 0), ("timeout", 3)])
def test_link_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"link: {field} is {value}; it must lie in"):
        LinkConfig(**{field: value})


def test_error_shows_what_became_of_the_last_packet():
    """It is up while the last packet was damaged, cut short or refused; an answer of OK or BUSY ends it."""
    good = [load(random.Random(3), i) for i in range(8)]
    run = request(Command.RUN, 4, first=1, count=1, frame={"wait": 1})
    script = [*start(), good[2][:-1] + b"\0", SILENCE, good[2], good[3][:9], SILENCE, good[3], run, good[7], run]
    bench = Bench(script, ring=RingModel(CONFIG, never_done=True)).simulate()
    statuses = [s for s, _ in outcomes(bytes(bench.answers))]
    assert statuses == [Status.OK, Status.OK, Status.DAMAGED, Status.OK, Status.TRUNCATED, Status.OK, Status.BUSY,
                        Status.SEQUENCE, Status.BUSY]
    assert bench.errors[::12] == [s not in (Status.OK, Status.BUSY) for s in statuses]


@pytest.mark.parametrize("seed", range(8))
def test_elements_that_make_no_sense(seed):
    """Any bytes as elements: the device does something defined, or stalls, and a new session finds it in order."""
    rng, script = random.Random(seed), []
    for _ in range(6):
        part = {"changes": rng.random() < 0.8, "elements": rng.choice((0, 1, 8, 36, 63, 64, 65, 130)), "end": 1,
                "wait": 1, "values": rng.random() < 0.4}
        data = rng.randbytes(rng.randrange(LINK.buffer_bytes - 20))
        if rng.random() < 0.5:
            data = bytes(byte & rng.choice((0, 1, 0x80)) for byte in data)
        script += [*start(), request(Command.RUN, 2, data, first=0, count=1, frame=part),
                   request(Command.RESET, 3, session=7)]
    answers, _ = check(script)
    assert {s for s, _ in answers} >= {Status.OK, Status.STALLED}
