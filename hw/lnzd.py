"""Leading non-zero detection: one non-zero of a vector per cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out


def beat_layout(width: int, tag) -> StructLayout:
    """What ``LeadingNonZero`` gives."""
    return StructLayout({"index": unsigned(max(1, (width - 1).bit_length())), "mask": unsigned(width), "tag": tag})


class LeadingNonZero(wiring.Component):
    """Turns each vector into one beat per non-zero element, lowest first (paper: the LNZD tree of EIE).

    Parameters
    ----------
    width
        elements of a vector.
    tag
        shape of what travels along unchanged.

    Members
    -------
    i : stream of {mask, whole, tag}
        ``mask`` has a bit per non-zero element and is not 0. A ``whole`` vector gives one beat only.
    o : stream of {index, mask, tag}
        ``index`` of the element (of a whole vector: of its first); ``mask`` is the vector's.
    ready_next : In
        what ``o.ready`` is in the next cycle, so that ``i.ready`` comes from a register.

    One beat per cycle without a gap between vectors; latency 1 cycle. Back-pressure holds everything.
    """

    def __init__(self, *, width: int, tag) -> None:
        self.width = width
        self.i_layout = StructLayout({"mask": unsigned(width), "whole": unsigned(1), "tag": tag})
        self.o_layout = beat_layout(width, tag)
        super().__init__({"i": In(stream.Signature(self.i_layout)), "o": Out(stream.Signature(self.o_layout)),
                          "ready_next": In(1)})

    def elaborate(self, platform):
        m = Module()
        vector, valid = Signal(self.i_layout, reset_less=True), Signal()
        rest, single = Signal(self.width, reset_less=True), Signal(reset_less=True)
        index = Signal(self.o.p.index.shape(), reset_less=True)
        load, source, following = Signal(init=1), Signal(self.width), Signal(self.width)
        valid_next, single_next = Signal(), Signal()
        m.d.comb += [
            self.o.valid.eq(valid), self.o.p.index.eq(index),
            self.o.p.mask.eq(vector.mask), self.o.p.tag.eq(vector.tag),
            self.i.ready.eq(load), valid_next.eq(Mux(load, self.i.valid, valid)),
            single_next.eq(Mux(load | self.o.ready, (following == 0) | (load & self.i.p.whole), single)),
            source.eq(Mux(load, self.i.p.mask, rest)), following.eq(source & (source - 1)),
        ]
        m.d.sync += [valid.eq(valid_next), single.eq(single_next),
                     load.eq(~valid_next | (self.ready_next & single_next))]
        with m.If(load):
            m.d.sync += vector.eq(self.i.p)
        # What the next beat is, and whether it is the last one, is worked out a cycle ahead.
        with m.If(load | self.o.ready):
            m.d.sync += rest.eq(following)
            for i in reversed(range(self.width)):
                with m.If(source[i]):
                    m.d.sync += index.eq(i)
        return m
