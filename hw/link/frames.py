"""The frame decoder: packed elements of the input tensor to words of deltas."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.link.mirror import MirrorPort
from hw.link.packets import FRAME, INPUT, LinkConfig
from hw.link.places import Places
from hw.link.unpacker import Unpacker
from hw.pipeline import delay
from hw.ring import frame_layout


class FrameDecoder(wiring.Component):
    """Turns the bytes of RUN and FRAME packets into the ring's frame deltas.

    An element is a byte u = code + zero point of its channel; elements come pixel by pixel (y, x), all channels of
    a pixel together. Each that is told (``Unpacker``) gives the delta u - mirror, or with ``values`` u - zero
    point; those smaller than ``threshold`` become 0. The mirror keeps u. ``quiet`` elements only do that.

    Members
    -------
    input : In
        the input tensor's ``channels`` and ``width``, steady.
    measure, measuring : In, Out
        ``input`` has changed; see ``Places``.
    zero_write, zero_address, zero_data : In
        writes the zero point of a channel.
    first : In
        the next element is the first of a frame.
    start, frame : In
        decode the elements of a packet; ``frame`` is steady until ``busy`` falls.
    busy : Out
        from the cycle after ``start`` until the packet is dealt with, and its words have been taken: all that no
        later element can belong to, and after the frame's end the last one.
    moving : Out
        some of it was done in this cycle.
    wants : Out
        a byte is needed; ``i`` is to be offered only then.
    i : In, stream of bytes; o : Out, stream of ``frame_layout``
        words that are not all 0, and at the frame's end one with ``last``, which may be.
    mirror : Out
        the mirror, used while ``busy``.

    One cycle per byte or element, whichever are more, one per 64 elements that do not change, and about 10 per
    packet. Cost: ``input_channels`` bytes of LUT RAM, and ``Places``.

    ::

        i -> Unpacker -> Places ------------> lanes of the word -> o
                 +-----> mirror, zero -> delta ---^
    """

    def __init__(self, config: AcceleratorConfig, link: LinkConfig) -> None:
        self.config, self.link, self.layouts = config, link, Layouts(config)
        super().__init__({
            "input": In(INPUT), "measure": In(1), "measuring": Out(1), "zero_write": In(1),
            "zero_address": In(range(link.input_channels)), "zero_data": In(8), "first": In(1), "start": In(1),
            "frame": In(FRAME), "busy": Out(1), "moving": Out(1), "wants": Out(1), "i": In(stream.Signature(8)),
            "o": Out(stream.Signature(frame_layout(self.layouts))), "mirror": Out(MirrorPort(link))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.unpacker = unpacker = Unpacker()
        m.submodules.places = places = Places(self.config, self.link)
        self.go, token = Signal(), unpacker.o
        connect(m, flipped(self.i), unpacker.i)
        m.d.comb += [
            unpacker.start.eq(self.start), unpacker.frame.eq(self.frame), unpacker.go.eq(self.go),
            self.wants.eq(unpacker.wants), places.input.eq(self.input), places.measure.eq(self.measure),
            self.measuring.eq(places.measuring), places.first.eq(self.first), places.go.eq(self.go),
            places.offset.eq(token.offset), places.advance.eq(token.advance)]
        base, new = self._known(m, token, places)
        under_way, told = [token.element | token.advance], [token.element]
        for _ in range(places.LATENCY + 1):
            under_way.append(delay(m, under_way[-1], 1, self.go))
            told.append(delay(m, told[-1], 1, self.go))
        self._words(m, told[-2], places.place, base, new)
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.d.comb += self.moving.eq(self.go & Cat(under_way).any())
                with m.If(~unpacker.busy & ~Cat(under_way).any()):
                    m.next = "IDLE"
                    with m.If(self.frame.end & ~self.frame.quiet):
                        m.next = "LAST"
            with m.State("LAST"):
                m.d.comb += self.o.p.last.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m

    def _known(self, m: Module, token, places):
        """(what to subtract, the element) in step with ``places.place``; writes the mirror."""
        m.submodules.zeros = zeros = Memory(shape=8, depth=self.link.input_channels, init=[])
        write, read = zeros.write_port(), zeros.read_port(domain="comb")
        m.d.comb += [write.addr.eq(self.zero_address), write.data.eq(self.zero_data),
                     write.en.eq(self.zero_write), read.addr.eq(places.channel)]
        mirror, block = self.mirror, Signal(self.mirror.address.shape())
        m.d.comb += [mirror.address.eq(block + token.offset), mirror.read.eq(self.go)]
        with m.If(self.go & token.advance):
            m.d.sync += block.eq(mirror.address + 1)
        with m.If(self.first):
            m.d.sync += block.eq(0)
        old = delay(m, mirror.data, 1, self.go)                                   # of 2 cycles ago
        zero, old = delay(m, read.data, 1, self.go), delay(m, old, 1, self.go)    # of 3
        sent, data = delay(m, token.sent & token.element, 3, self.go), delay(m, token.data, 3, self.go)
        m.d.comb += [mirror.write_address.eq(delay(m, mirror.address, 3, self.go)), mirror.write_data.eq(data),
                     mirror.write.eq(sent & self.go)]
        return (delay(m, Mux(self.frame.values, zero, old), 1, self.go),
                delay(m, Mux(sent, data, old), 1, self.go))

    def _words(self, m: Module, told, place, base, new) -> None:
        """Deltas go to their lanes of the word; an element of another word first sends off the one before."""
        word, sweep = self.o.p, (self.config.sweep - 1).bit_length()
        where = Cat(place.channel[sweep:], place.x, place.y)
        delta, magnitude = Signal(signed(CODE_BITS)), Signal(CODE_BITS)
        at, begun, loud, forget = Signal(len(where)), Signal(), Signal(), Signal()
        m.d.comb += [delta.eq(new - base), magnitude.eq(Mux(delta < 0, -delta, delta)),
                     forget.eq(self.first | (word.last & self.o.ready))]
        told &= ~self.frame.quiet
        with m.If(self.go & told):
            m.d.sync += [begun.eq(1), at.eq(where)]
        put, fresh, here, value = (delay(m, v, 1, self.go) for v in (
            told, ~begun | (where != at), place, Mux(magnitude < self.frame.threshold, 0, delta)))
        lane, group = here.channel[:sweep], here.channel[sweep:]
        m.d.comb += [self.o.valid.eq((put & fresh & loud) | word.last), self.go.eq(~self.o.valid | self.o.ready)]
        with m.If(self.go & put):
            m.d.sync += [loud.eq((loud & ~fresh) | (value != 0)), word.group.eq(group), word.x.eq(here.x),
                         word.y.eq(here.y)]
            for i in range(self.config.sweep):
                with m.If(lane == i):
                    m.d.sync += word.deltas[i].eq(value)
                with m.Elif(fresh):
                    m.d.sync += word.deltas[i].eq(0)
        with m.If(forget):
            m.d.sync += [begun.eq(0), loud.eq(0), word.deltas.eq(0)]
