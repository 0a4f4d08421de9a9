"""cocotb tests of the link (run by test_cocotb.py): the bench and the model of the other tests, on Verilator."""

from __future__ import annotations

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from hw.link.link import Link
from tests.link.bench import CONFIG, LINK, PERIOD, SILENCE, Bench
from tests.link.device_model import DeviceModel, RingModel
from tests.link.requests import mutate, valid
from tests.link.verilator import Constant, Context, Pin, pins, start

KEPT = {"mirror": bytes(LINK.mirror_bytes)}
"""Memories outlive the reset between tests."""


@cocotb.test()
@cocotb.parametrize(stalls=["none", "random", "bursty"], seed=[0, 1], line=["good", "bad"])
async def session(dut, stalls, seed, line):
    """A session of random packets, on a good line or a bad one: answers and effects are the model's."""
    rng = random.Random(seed)
    packets = valid(rng, 40)
    script = packets if line == "good" else [item for p in packets for item in mutate(rng, p)]
    answers, expected = bytearray(), RingModel(CONFIG)
    device = DeviceModel(CONFIG, LINK, expected, answers.extend)
    device.mirror[:] = KEPT["mirror"]
    for item in script:
        device.silence() if item is SILENCE else device.feed(item)
    device.silence()
    KEPT["mirror"] = bytes(device.mirror)

    period = round(PERIOD * 1e9)
    cocotb.start_soon(Clock(dut.clk, period, "ns").start())
    ports = pins(dut, Link(CONFIG, LINK).signature)
    for port in (ports.i, ports.ring.answer):
        port.valid.set(0)
        port.payload.handle.value = 0
    for port in (ports.o, ports.ring.load, ports.ring.run, ports.ring.frame, ports.ring.read):
        port.ready.set(0)
    ports.ring.idle.set(1)
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    context = Context(dut.clk, period)
    bench = Bench(script, stalls=stalls, seed=seed, dut=ports)
    tasks = [start(process, context) for process in bench.background]
    ring = ports.ring
    tasks += [start(monitor, context, port, Pin(dut.reset, 1))
              for port in (ports.o, ring.load, ring.run, ring.frame, ring.read)]
    await bench.send(context)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    assert bytes(bench.answers) == answers
    assert bench.ring.effects == expected.effects


async def monitor(context: Context, port, reset: Pin | None = None) -> None:
    """An offer stands, unchanged, until it is taken, unless the ring is reset."""
    offered, bits_of = None, Pin(port.payload.handle, 1)
    while True:
        *_, valid, ready, bits, was_reset = await context.tick().sample(
            port.valid, port.ready, bits_of, reset or Constant(0))
        assert offered is None or (valid and bits == offered), f"{port.valid.handle._name} took its offer back"
        offered = bits if valid and not ready and not was_reset else None
