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

    One beat per cycle without a gap between vectors; latency 1 cycle. Back-pressure holds everything.
    """

    def __init__(self, *, width: int, tag) -> None:
        self.width = width
        self.i_layout = StructLayout({"mask": unsigned(width), "whole": unsigned(1), "tag": tag})
        self.o_layout = beat_layout(width, tag)
        super().__init__({"i": In(stream.Signature(self.i_layout)), "o": Out(stream.Signature(self.o_layout))})

    def elaborate(self, platform):
        m = Module()
        vector, left = Signal(self.i_layout, reset_less=True), Signal(self.width)
        rest, load = Signal(self.width), Signal()
        m.d.comb += [
            rest.eq(Mux(vector.whole, 0, left & (left - 1)[:self.width])),
            self.o.valid.eq(left != 0), self.o.p.mask.eq(vector.mask), self.o.p.tag.eq(vector.tag),
            load.eq((left == 0) | (self.o.ready & (rest == 0))),
            self.i.ready.eq(load),
        ]
        for index in reversed(range(self.width)):
            with m.If(left[index]):
                m.d.comb += self.o.p.index.eq(index)
        with m.If(load):
            m.d.sync += [vector.eq(self.i.p), left.eq(Mux(self.i.valid, self.i.p.mask, 0))]
        with m.Elif(self.o.ready):
            m.d.sync += left.eq(rest)
        return m
