"""Places of elements: from their number in the frame to row, column and channel."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts
from hw.link.packets import BLOCK, INPUT, LinkConfig
from hw.pipeline import delay


def place_layout(config: AcceleratorConfig, link: LinkConfig) -> StructLayout:
    """An element's place, the digit that counts fastest first."""
    bits = Layouts(config).position
    return StructLayout({"channel": unsigned(max(1, (link.input_channels - 1).bit_length())), "x": unsigned(bits),
                         "y": unsigned(bits)})


class Places(wiring.Component):
    """Adds the place of a block and that of an offset in it, as numbers whose digits are channel, column and row.

    Members
    -------
    input : In
        the input tensor's ``channels`` and ``width``.
    measure, measuring : In, Out
        ``input`` has changed: work out the places of offsets; 64 cycles.
    first : In
        the block begins at the frame's first element.
    go : In
        the pipeline moves.
    offset, advance : In
        an element of the block; with ``advance`` the next block begins behind it.
    channel, place : Out
        of the element, ``CHANNEL`` and ``LATENCY`` cycles later; of an ``advance`` the next block's.

    A digit per cycle. Cost: 64 places of LUT RAM and an adder with a subtracter behind it per digit.
    """

    CHANNEL, LATENCY = 2, 4

    def __init__(self, config: AcceleratorConfig, link: LinkConfig) -> None:
        self.layout = place_layout(config, link)
        super().__init__({"input": In(INPUT), "measure": In(1), "measuring": Out(1), "first": In(1), "go": In(1),
                          "offset": In(range(BLOCK)), "advance": In(1),
                          "channel": Out(self.layout["channel"].shape), "place": Out(self.layout)})

    def elaborate(self, platform):
        m = Module()
        own, carry, advance = self._table(m), self.advance, self.advance
        sums = []
        for number, (name, field) in enumerate(self.layout):
            # this digit is added ``number`` + 1 cycles after the table was read
            block, total, over = (Signal(w, name=f"{name}_{of}") for of, w in
                                  (("block", field.width), ("sum", field.width + 1), ("carry", 1)))
            result, limit = Signal(field.width, name=f"{name}_result"), self._limit(name)
            digit = delay(m, own[name], number + 1, self.go)
            carry, advance = (delay(m, carry, 1, self.go), delay(m, advance, 1, self.go))
            m.d.comb += [total.eq(block + digit + carry), over.eq(0 if limit is None else total >= limit),
                         result.eq(Mux(over, total - (0 if limit is None else limit), total))]
            with m.If(self.go & advance):
                m.d.sync += block.eq(result)
            with m.If(self.first):
                m.d.sync += block.eq(0)
            sums.append(delay(m, result, 1, self.go))
            carry = over
        m.d.comb += self.channel.eq(sums[0])
        for number, (name, _) in enumerate(self.layout):
            m.d.comb += self.place[name].eq(delay(m, sums[number], len(sums) - 1 - number, self.go))
        return m

    def _limit(self, name: str):
        """The number of values that a digit has; None for rows, of which nobody needs to know."""
        field = {"channel": "channels", "x": "width"}.get(name)
        return None if field is None else self.input[field][:self.layout[name].width + 1]

    def _table(self, m: Module):
        """The place of each offset in a block that begins at 0, counted once."""
        m.submodules.table = table = Memory(shape=self.layout, depth=BLOCK, init=[])
        write, read = table.write_port(), table.read_port(domain="comb")
        count, at = Signal(range(BLOCK)), Signal(self.layout)
        m.d.comb += [read.addr.eq(self.offset), write.addr.eq(count), write.data.eq(at), write.en.eq(self.measuring)]
        with m.If(self.measure):
            m.d.sync += [self.measuring.eq(1), count.eq(0), at.eq(0)]
        with m.Elif(self.measuring):
            m.d.sync += [count.eq(count + 1), at.channel.eq(at.channel + 1)]
            with m.If(at.channel == self.input.channels - 1):
                m.d.sync += [at.channel.eq(0), at.x.eq(at.x + 1)]
                with m.If(at.x == self.input.width - 1):
                    m.d.sync += [at.x.eq(0), at.y.eq(at.y + 1)]
            with m.If(count == BLOCK - 1):
                m.d.sync += self.measuring.eq(0)
        return read.data
