"""The snapshot memory."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space, size_of
from hw.load import LoadSignature
from hw.pipeline import delay


class Snapshots(wiring.Component):
    """Snapshots of all tensors: words of S codes, one read and one write port.

    Members
    -------
    address, data : In, Out
        read; the word comes ``LATENCY`` cycles later.
    write, write_address, write_data : In
        the delta unit's writes.
    load : In
        host writes; only while no step runs.

    A word is read (as reference) at least 20 cycles before the same sweep writes it, and never read by another
    node in the same step, so reads and writes of one word never meet.
    """

    LATENCY = 2

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({"address": In(lay.snapshot_address), "data": Out(lay.codes), "write": In(1),
                          "write_address": In(lay.snapshot_address), "write_data": In(lay.codes),
                          "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Memory(shape=self.layouts.codes, depth=self.config.snapshot_words, init=[])
        read, write = ram.read_port(), ram.write_port()
        loading = Signal()
        m.d.comb += [read.addr.eq(self.address), self.data.eq(delay(m, read.data, 1, reset_less=True)),
                     loading.eq(self.load.strobe & (self.load.space == Space.SNAPSHOTS)),
                     write.addr.eq(self.write_address), write.data.eq(self.write_data),
                     write.en.eq(self.write | loading)]
        with m.If(loading):
            m.d.comb += [write.addr.eq(self.load.address),
                         write.data.eq(self.load.data[:size_of(self.layouts.codes)])]
        return m
