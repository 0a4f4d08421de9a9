"""The unpacker: bytes of RUN and FRAME packets to the elements that they hold or leave as they are."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.link.packets import BLOCK, FRAME, GROUP

TOKEN = StructLayout({"element": unsigned(1), "advance": unsigned(1), "sent": unsigned(1), "data": unsigned(8),
                      "offset": unsigned((BLOCK - 1).bit_length())})
"""``element``: the one at ``offset`` in the present block; it is ``data`` if it was ``sent``, else as in the mirror.
``advance``: the next block begins behind ``offset``."""


class Unpacker(wiring.Component):
    """Walks through the blocks of a packet.

    Of a packet of ``changes`` a block of 64 elements begins with a mask of its groups of 8; then comes, for each
    group whose bit is set, a mask of its elements, and each element whose bit is set. Else every element comes.
    With ``values`` every element is told, else those that were sent.

    Members
    -------
    start, frame : In
        begin a packet; ``frame`` is steady until ``busy`` falls.
    busy : Out
        from the cycle after ``start`` until the last token has been told.
    go : In
        the next token may be told; ``o`` changes only then.
    wants : Out
        the next token needs a byte; ``i`` is to be offered only then.
    i : In, stream of bytes
    o : Out, ``TOKEN``

    One byte per cycle, one element per cycle, and a cycle per block that has no byte.
    """

    def __init__(self) -> None:
        super().__init__({"start": In(1), "frame": In(FRAME), "busy": Out(1), "go": In(1), "wants": Out(1),
                          "i": In(stream.Signature(8)), "o": Out(TOKEN)})

    def elaborate(self, platform):
        m, frame = Module(), self.frame
        left, more, begun, final = Signal(16), Signal(), Signal(), Signal.like(self.o.offset)
        present, todo, group = Signal(GROUP), Signal(GROUP), Signal(range(GROUP))
        follow, walk, index, sent = Signal(GROUP), Signal(GROUP), Signal(range(GROUP)), Signal()
        dense, every = frame.values | ~frame.changes, Const((1 << GROUP) - 1, GROUP)
        byte, want, step = self.i.p, self.wants, Signal()
        rest, groups, mask = walk & (walk - 1), todo & (todo - 1), Signal(GROUP)
        next_index, next_group = self._lowest(m, mask), self._lowest(m, todo)
        m.d.comb += [step.eq(self.go & (self.i.valid | ~want)), self.i.ready.eq(self.go & want), mask.eq(rest)]
        with m.If(self.go):
            m.d.sync += [self.o.element.eq(0), self.o.advance.eq(0)]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [left.eq(frame.elements), more.eq(frame.elements != 0), begun.eq(0)]
                with m.If(self.start):
                    m.next = "BLOCK"
            with m.State("BLOCK"):
                m.d.comb += want.eq(frame.changes & more)
                with m.If(step):
                    last = left <= BLOCK
                    m.d.sync += [self.o.advance.eq(begun), self.o.offset.eq(final), begun.eq(1), more.eq(~last),
                                 final.eq(Mux(last, left - 1, BLOCK - 1)), left.eq(left - BLOCK), present.eq(byte),
                                 todo.eq(Mux(frame.values, every, byte)), group.eq(0), follow.eq(every),
                                 walk.eq(every), index.eq(0), sent.eq(1)]
                    with m.If(~more):
                        m.next = "IDLE"
                    with m.Elif(~frame.changes):
                        m.next = "ELEMENTS"
                    with m.Elif(frame.values | (byte != 0)):
                        m.next = "GROUP"
            with m.State("GROUP"):
                m.d.comb += [want.eq(~frame.values | present[0]), mask.eq(byte)]
                with m.If(step):
                    m.d.sync += [group.eq(next_group), todo.eq(groups), present.eq(present >> 1),
                                 follow.eq(Mux(want, byte, 0)), walk.eq(Mux(frame.values, every, byte)),
                                 index.eq(Mux(frame.values, 0, next_index)),
                                 sent.eq(~frame.values | (present[0] & byte[0]))]
                    with m.If(frame.values | (byte != 0)):
                        m.next = "ELEMENTS"
                    with m.Elif(groups == 0):
                        m.next = "BLOCK"
            with m.State("ELEMENTS"):
                offset = Cat(index, group)
                m.d.comb += want.eq(sent)
                with m.If(step):
                    m.d.sync += [self.o.element.eq(1), self.o.sent.eq(sent), self.o.data.eq(byte),
                                 self.o.offset.eq(offset), walk.eq(rest), index.eq(next_index),
                                 sent.eq(follow.bit_select(next_index, 1))]
                    with m.If(Mux(dense, offset == final, (rest | todo) == 0)):
                        m.next = "BLOCK"
                    with m.Elif(rest == 0):
                        with m.If(frame.changes):
                            m.next = "GROUP"
                        with m.Else():
                            m.d.sync += [group.eq(group + 1), walk.eq(every), index.eq(0), sent.eq(1)]
        return m

    @staticmethod
    def _lowest(m: Module, mask):
        """The number of the lowest bit that is set."""
        number = Signal(range(len(mask)))
        for i in reversed(range(len(mask))):
            with m.If(mask[i]):
                m.d.comb += number.eq(i)
        return number
