"""The frame decoder: packed elements of the input tensor to words of deltas."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.link.mirror import MirrorPort
from hw.link.packets import FRAME, INPUT, LinkConfig
from hw.ring import frame_layout


class FrameDecoder(wiring.Component):
    """Turns the bytes of RUN and FRAME packets into the ring's frame deltas.

    An element is a byte u = code + zero point of its channel; elements come pixel by pixel (y, x), all
    channels of a pixel together. In a packet of ``changes`` eight elements begin with a mask of which bit i
    tells whether element i follows; those that do not are as in the mirror, which holds the bytes of the last
    frame. Else every element follows. Each element gives the delta u - mirror, or with ``values`` u - zero
    point; those smaller than ``threshold`` become 0. The mirror keeps u. ``quiet`` elements only do that.

    Members
    -------
    input : In
        the input tensor's ``channels`` and ``width``, steady.
    zero_write, zero_address, zero_data : In
        writes the zero point of a channel.
    first : In
        the next element is the first of a frame.
    start, frame : In
        decode the elements of a packet; ``frame`` is steady until ``busy`` falls.
    busy : Out
        from the cycle after ``start`` until the last word has been taken.
    i : In, stream of bytes; o : Out, stream of ``frame_layout``
        a pixel's last word holds its last channels; lanes beyond them are 0.
    mirror : Out
        the mirror, used while ``busy``.

    One element per cycle, a cycle more per eight of ``changes``. Cost: ``input_channels`` bytes of LUT RAM.
    """

    def __init__(self, config: AcceleratorConfig, link: LinkConfig) -> None:
        self.config, self.link, self.layouts = config, link, Layouts(config)
        super().__init__({
            "input": In(INPUT), "zero_write": In(1), "zero_address": In(range(link.input_channels)),
            "zero_data": In(8), "first": In(1), "start": In(1), "frame": In(FRAME), "busy": Out(1),
            "i": In(stream.Signature(8)),
            "o": Out(stream.Signature(frame_layout(self.layouts))), "mirror": Out(MirrorPort(link))})

    def elaborate(self, platform):
        m = Module()
        mirror, frame = self.mirror, self.frame
        channel, at = Signal(range(self.link.input_channels)), Signal(mirror.address.shape())
        left, follow, known = Signal(16), Signal(8), Signal(3)
        zero = self._zero_points(m, channel)
        step, present = Signal(), Signal()
        m.d.comb += [present.eq(~frame.changes | follow[0]),
                     mirror.address.eq(Mux(step, at + 1, at)), mirror.write_address.eq(at),
                     mirror.write_data.eq(self.i.p), mirror.write.eq(step & present)]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [left.eq(frame.elements), known.eq(0)]
                with m.If(self.start):
                    m.next = "PREFETCH"
            with m.State("PREFETCH"):
                m.next = "ELEMENTS"
                with m.If(frame.changes):
                    m.next = "MASK"
                with m.If(left == 0):
                    m.next = "DRAIN"
            with m.State("MASK"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += follow.eq(self.i.p)
                with m.If(self.i.valid):
                    m.next = "ELEMENTS"
            with m.State("ELEMENTS"):
                m.d.comb += [step.eq((self.i.valid | ~present) & (~self.o.valid | self.o.ready)),
                             self.i.ready.eq(step & present)]
                with m.If(step):
                    m.d.sync += [at.eq(at + 1), left.eq(left - 1), follow.eq(follow >> 1),
                                 known.eq(known + 1)]
                    with m.If(frame.changes & (known == 7)):
                        m.next = "MASK"
                    with m.If(left == 1):
                        m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(~self.o.valid):
                    m.next = "IDLE"
        new = Mux(present, self.i.p, mirror.data)
        self._words(m, step, channel, new, Mux(frame.values, zero, mirror.data), (left == 1) & frame.end)
        with m.If(self.first):
            m.d.sync += at.eq(0)
        return m

    def _zero_points(self, m: Module, channel):
        m.submodules.zeros = memory = Memory(shape=8, depth=self.link.input_channels, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [write.addr.eq(self.zero_address), write.data.eq(self.zero_data),
                     write.en.eq(self.zero_write), read.addr.eq(channel)]
        return read.data

    def _words(self, m: Module, step, channel, new, base, last) -> None:
        """Puts elements into lanes and counts where they are."""
        lay, word = self.layouts, self.o.p
        y, x, group = Signal(lay.position), Signal(lay.position), Signal(lay.group)
        lane, end_of_pixel, end_of_row = Signal(range(self.config.sweep)), Signal(), Signal()
        delta, magnitude = Signal(signed(CODE_BITS)), Signal(CODE_BITS)
        m.d.comb += [
            delta.eq(new - base), magnitude.eq(Mux(delta < 0, -delta, delta)),
            end_of_pixel.eq(channel == self.input.channels - 1), end_of_row.eq(x == self.input.width - 1),
        ]
        full = end_of_pixel | (lane == self.config.sweep - 1) | last
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(step):
            m.d.sync += [self.o.valid.eq(full & ~self.frame.quiet),
                         word.y.eq(y), word.x.eq(x), word.group.eq(group), word.last.eq(last),
                         channel.eq(channel + 1), lane.eq(lane + 1)]
            for i in range(self.config.sweep):
                with m.If(lane == i):
                    m.d.sync += word.deltas[i].eq(Mux(magnitude < self.frame.threshold, 0, delta))
                with m.Elif(lane == 0):
                    m.d.sync += word.deltas[i].eq(0)
            with m.If(full):
                m.d.sync += [lane.eq(0), group.eq(group + 1)]
            with m.If(end_of_pixel):
                m.d.sync += [channel.eq(0), group.eq(0), x.eq(Mux(end_of_row, 0, x + 1)),
                             y.eq(y + end_of_row)]
        with m.If(self.first):
            m.d.sync += [y.eq(0), x.eq(0), group.eq(0), channel.eq(0), lane.eq(0)]
