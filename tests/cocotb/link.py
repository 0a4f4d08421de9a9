"""cocotb tests of the link before a model of the ring: good and bad packets against the device's model. Every stream
inside is watched. Run by ``test_cocotb.py``."""

from __future__ import annotations

import random

import cocotb

from hw.link.link import Link
from tests.cocotb.bench import Bench, Sink, Source
from tests.hw.bench import STALLS
from tests.link.bench import CONFIG, LINK, SILENCE
from tests.link.device_model import DeviceModel, RingModel
from tests.link.requests import mutate, valid

SHAPES = {name: member.signature.members["payload"].shape
          for name, member in Link(CONFIG, LINK).signature.members["ring"].signature.members.items()
          if member.is_signature}
MIRROR = bytearray(LINK.mirror_bytes)
"""Memories outlive the reset between tests."""


class Ring:
    """The ring's end of the link: takes what the model takes, when it takes it, and answers reads."""

    def __init__(self, dut, stall: str) -> None:
        self.dut, self.model, self.hidden = dut, RingModel(CONFIG), 0
        self.sinks = {name: Sink(dut, f"ring__{name}", stall, i)
                      for i, name in enumerate(("load", "run", "frame", "read"))}
        self.answer = Source(dut, "ring__answer", [], stall)

    def drive(self) -> None:
        idle = self.model.idle and not self.hidden
        self.dut.ring__idle.value = int(idle)
        for name, sink in self.sinks.items():
            sink.drive()
            if not {"run": idle, "frame": self.model.taking}.get(name, True):
                sink.open, sink.ready.value = False, 0
        self.answer.drive()

    def see(self) -> None:
        self.hidden = max(0, self.hidden - 1)
        self.answer.see()
        for name, sink in self.sinks.items():
            sink.see()
            for bits in sink.got:
                getattr(self, f"_{name}")(SHAPES[name].from_bits(bits))
            sink.got.clear()
        if int(self.dut.reset.value):
            self.model.reset()

    def _load(self, p) -> None:
        self.model.effects.append(("load", *(int(p[name]) for name in ("space", "unit", "address", "data", "last"))))

    def _run(self, p) -> None:
        self.model.run(int(p.first), int(p["count"]), int(p.refresh))
        self.hidden = 4 * (p["count"] != 0)

    def _frame(self, p) -> None:
        self.model.frame(tuple(int(d) for d in p.deltas), *(int(p[name]) for name in ("y", "x", "group", "last")))

    def _read(self, p) -> None:
        data = self.model.read(int(p.space), int(p.unit), int(p.address))
        for i in range(0, len(data), 4):
            chunk = {"data": int.from_bytes(data[i:i + 4], "little"), "last": i + 4 >= len(data)}
            self.answer.values.append(SHAPES["answer"].const(chunk).as_bits())


class Script:
    """Sends byte strings; at a ``SILENCE`` and at the end waits until nothing happens any more."""

    REST = LINK.timeout + 200

    def __init__(self, dut, items: list, happened, stall: str) -> None:
        self.source, self.items, self.happened = Source(dut, "i", [], stall), [*items, SILENCE], happened
        self.before, self.quiet = None, 0

    def drive(self) -> None:
        self.source.drive()

    def see(self) -> None:
        self.source.see()
        if not self.source.done or self.done:
            return
        if self.items[0] is SILENCE:
            now = self.happened()
            self.quiet = self.quiet + 1 if now == self.before else 0
            self.before = now
            if self.quiet < self.REST:
                return
            self.quiet = 0
        else:
            self.source.values += self.items[0]
        del self.items[0]

    @property
    def done(self) -> bool:
        return not self.items


@cocotb.test()
@cocotb.parametrize(stall=STALLS, line=["good", "bad"])
async def session(dut, stall, line):
    """A session of random packets, on a good line or a bad one: answers and effects are the model's."""
    rng = random.Random(f"{stall} {line}")
    script = valid(rng, 25)
    if line == "bad":
        script = [item for p in script for item in mutate(rng, p)]
    answers, expected = bytearray(), RingModel(CONFIG)
    device = DeviceModel(CONFIG, LINK, expected, answers.extend)
    device.mirror[:] = MIRROR
    for item in script:
        device.silence() if item is SILENCE else device.feed(item)
    device.silence()
    MIRROR[:] = device.mirror
    bench = Bench(dut)
    await bench.reset()
    ring, sink = Ring(dut, stall), Sink(dut, "o", stall)
    run = Script(dut, script, lambda: (len(sink.got), len(ring.model.effects)), stall)
    bench.agents = [run, ring, sink]
    await bench.until(lambda: run.done, 200_000)
    assert bytes(sink.got) == answers
    assert ring.model.effects == expected.effects
    assert bench.broken == []
