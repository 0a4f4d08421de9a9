"""The walk along a weight column: one weight word, and the P word it belongs to, per cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Kind, Layouts, Space, address_bits
from hw.load import NOTHING, Contents, LoadSignature, loaded_memory
from hw.pipeline import delay


class Walker(wiring.Component):
    """Walks a column's words and decodes them.

    Members
    -------
    work : In, stream of ``Layouts.work``
        the columns to walk, with the deltas to multiply.
    hold : In
        no word is begun in this cycle.
    walking, left, late, turn : Out
        a word would be begun in this cycle; how many of the column are still to begin; what its work says of it.
    busy : Out
        something is under way.
    valid, address : Out
        P word of the weight word begun ``LATENCY`` cycles ago.
    weights, deltas : Out
        its decoded weights and deltas, ``OPERAND_LATENCY`` cycles after it began.
    load : In
        host writes into the weight, tap and codebook memories.

    Dense: the words of a column are ``taps x blocks``; the tap table gives each tap's place among the weights
    and in P. CSC: the words are consecutive; each one's relative index (4 bits) leads to its virtual row
    ``tap << block_bits | block``, whose tap the table turns into a place in P. A word with the largest index and
    only codes 0 is padding and does nothing.

    One word per cycle, also from column to column. Cost: weight memory (1 read, 1 write port), the tap table
    twice when the config has CSC kinds, a codebook port per lane.

    ::

        cycle 0 begin | 2 tap | 3 weight address | 5 word | 6 row | 7 codebook, or the word | 8 tap of the row | 9 out
    """

    LATENCY = 9
    OPERAND_LATENCY = 7

    def __init__(self, config: AcceleratorConfig, contents: Contents = NOTHING) -> None:
        self.config, self.layouts, self.contents = config, Layouts(config), contents
        lay = self.layouts
        super().__init__({
            "work": In(stream.Signature(lay.work)), "hold": In(1), "walking": Out(1),
            "left": Out(lay.column.members["count"]), "late": Out(1), "turn": Out(1), "busy": Out(1),
            "valid": Out(1), "address": Out(lay.projection_address),
            "weights": Out(ArrayLayout(signed(config.weight_bits), config.lanes)),
            "deltas": Out(ArrayLayout(signed(CODE_BITS), config.lanes)), "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        begin = self._walk(m)
        issued = [begin["issue"]]
        for _ in range(5):
            issued.append(delay(m, issued[-1], 1))
        placed = self._dense_place(m, begin)
        word = self._weight_word(m, placed["weight"])
        valid = self._decode(m, issued[5], placed, word)
        m.d.comb += self.busy.eq(Cat(begin["active"], *issued[1:], *valid).any())
        return m

    def _memory(self, m: Module, space: Space, name: str) -> Memory:
        return loaded_memory(m, name, self.layouts, space, self.load, self.contents)

    def _walk(self, m: Module) -> dict:
        """Cycle 0: the column under way, and which of its words begins now."""
        lay = self.layouts
        active, work = Signal(), Signal(lay.work, reset_less=True)
        left = self.left
        tap, block = Signal(lay.tap_address), Signal(max(1, lay.log_blocks))
        start, first = Signal(lay.weight_address), Signal()
        issue, load, ending = Signal(), Signal(), Signal()                 # ``ending``: one word is left
        m.d.comb += [self.walking.eq(active), self.late.eq(work.late), self.turn.eq(work.turn),
                     issue.eq(active & ~self.hold), load.eq(~active | (issue & ending)), self.work.ready.eq(load)]
        with m.If(issue):
            m.d.sync += [left.eq(left - 1), ending.eq(left == 2), first.eq(0)]
            with m.If(work.walk.kind != Kind.DENSE8):
                m.d.sync += start.eq(start + 1)
            with m.Elif(block == work.walk.last_block):
                m.d.sync += [block.eq(0), tap.eq(tap + 1)]
            with m.Else():
                m.d.sync += block.eq(block + 1)
        with m.If(load):
            new = self.work.p
            m.d.sync += [active.eq(self.work.valid), work.eq(new), left.eq(new.count), ending.eq(new.count == 1),
                         first.eq(1), block.eq(0), tap.eq(new.row), start.eq(new.start)]
        return {"issue": issue, "work": work, "tap": tap, "block": block, "start": start, "first": first,
                "active": active}

    def _dense_place(self, m: Module, begin: dict) -> dict:
        """Cycles 1 to 3: weight address, and the place in P (of a CSC word without its row)."""
        lay, work = self.layouts, begin["work"]
        read = self._memory(m, Space.TAPS, "taps").read_port()
        m.d.comb += read.addr.eq(begin["tap"])
        tap = delay(m, read.data, 1, reset_less=True)
        two = {name: delay(m, value, 2, reset_less=True) for name, value in (
            ("weight", (begin["start"] + begin["block"])[:lay.weight_address]),
            ("place", (work.origin + begin["block"])[:lay.projection_address]), ("deltas", work.deltas),
            ("first", begin["first"]), ("row", work.row), ("kind", work.walk.kind),
            ("block_bits", work.walk.block_bits), ("codebook", work.walk.codebook))}
        three = {name: delay(m, value, 1, reset_less=True) for name, value in two.items()}
        dense = two["kind"] == Kind.DENSE8
        three["weight"] = delay(m, (two["weight"] + Mux(dense, tap.weight, 0))[:lay.weight_address], 1, reset_less=True)
        three["place"] = delay(m, (two["place"] + Mux(dense, tap.offset, 0))[:lay.projection_address], 1,
                               reset_less=True)
        return three

    def _weight_word(self, m: Module, address):
        """Cycles 4 and 5: the weight memory with its output register."""
        read = self._memory(m, Space.WEIGHTS, "weights").read_port()
        m.d.comb += read.addr.eq(address)
        return delay(m, read.data, 1, reset_less=True)

    def _decode(self, m: Module, issued5, placed: dict, word) -> list:
        """Cycles 6 to 9: weights, and the place in P of a CSC word. Returns what is valid in each of them."""
        config, lay = self.config, self.layouts
        five = {name: delay(m, value, 2, reset_less=True) for name, value in placed.items()}
        m.d.comb += self.deltas.eq(delay(m, five["deltas"], 2, reset_less=True))
        plain = Signal(ArrayLayout(signed(config.weight_bits), config.lanes))
        if "dense8" in config.kinds:
            view = lay.dense8(word[:lay.dense8.size])
            m.d.comb += [plain[i].eq(view.weights[i]) for i in range(config.lanes)]
        plain7 = delay(m, plain, 2, reset_less=True)
        valid5, place7 = issued5, delay(m, five["place"], 2, reset_less=True)
        if config.csc:
            valid5, address8 = self._csc_word(m, word, issued5, five, plain7, place7)
            m.d.sync += self.address.eq(address8)
        else:
            m.d.comb += self.weights.eq(plain7)
            m.d.sync += self.address.eq(delay(m, place7, 1, reset_less=True))
        valid = [delay(m, valid5, 1)]
        valid += [delay(m, valid[0], 1)]
        valid += [delay(m, valid[1], 1)]
        m.d.sync += self.valid.eq(valid[2])
        return [*valid, self.valid]

    def _csc_word(self, m: Module, word, issued5, five: dict, plain7, place7):
        """Cycles 5 to 8 of a CSC word: codebook, virtual row and tap. Returns whether it does anything, in cycle 5,
        and its place in cycle 8."""
        config, lay = self.config, self.layouts
        dense = five["kind"] == Kind.DENSE8
        index, codes = self._csc_fields(m, word, five["kind"])
        dense7 = delay(m, dense, 2, reset_less=True)
        for lane, code in enumerate(codes):
            read = self._memory(m, Space.CODEBOOK, f"codebook{lane}").read_port()
            m.d.comb += read.addr.eq((five["codebook"] + code)[:address_bits(config.codebook_words)])
            m.d.comb += self.weights[lane].eq(Mux(dense7, plain7[lane], delay(m, read.data, 1, reset_less=True)))
        here, following = Signal(lay.row), Signal(lay.row)
        m.d.comb += here.eq(Mux(five["first"], five["row"], following) + index)
        with m.If(issued5):
            m.d.sync += following.eq(here + 1)
        row6, bits6 = delay(m, here, 1, reset_less=True), delay(m, five["block_bits"], 1, reset_less=True)
        read = self._memory(m, Space.TAPS, "taps_csc").read_port()
        m.d.comb += read.addr.eq(row6 >> bits6)
        block7 = delay(m, (row6 & ((1 << bits6) - 1))[:max(1, lay.log_blocks)], 1, reset_less=True)
        place8 = delay(m, (place7 + Mux(dense7, 0, block7))[:lay.projection_address], 1, reset_less=True)
        tap8 = delay(m, read.data, 1, reset_less=True)
        return (issued5 & (dense | Cat(codes).any() | ~index.all()),
                place8 + Mux(delay(m, dense7, 1, reset_less=True), 0, tap8.offset))

    def _csc_fields(self, m: Module, word, kind):
        """Relative row, and the code of every lane."""
        config, lay = self.config, self.layouts
        views = {name: layout(word[:layout.size]) for name, layout in (("csc4", lay.csc4), ("csc8", lay.csc8))
                 if name in config.kinds}
        (_, first), *others = views.items()
        codes = [Signal(8 if "csc8" in views else 4, name=f"code{lane}") for lane in range(config.lanes)]
        for lane, code in enumerate(codes):
            m.d.comb += code.eq(first.codes[lane])
            if others:
                with m.If(kind == Kind.CSC8):
                    m.d.comb += code.eq(views["csc8"].codes[lane])
        return first.index, codes
