"""The walk along a weight column: one weight word, and the P word it belongs to, per cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Kind, Layouts, Space, address_bits, size_of
from hw.load import LoadSignature
from hw.pipeline import delay


class Walker(wiring.Component):
    """Walks a column's words and decodes them.

    Members
    -------
    work : In, stream of ``Layouts.work``
        the columns to walk, with the deltas to multiply.
    hold : In
        no word is begun in this cycle.
    walking : Out
        a word would be begun in this cycle.
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

        cycle 0 begin | 1 tap table | 2 weight address | 3 RAM latch | 4 word | 5 codebook, row | 6 tap table | 7 out
    """

    LATENCY = 7
    OPERAND_LATENCY = 5

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({
            "work": In(stream.Signature(lay.work)), "hold": In(1), "walking": Out(1), "busy": Out(1),
            "valid": Out(1), "address": Out(lay.projection_address),
            "weights": Out(ArrayLayout(signed(config.weight_bits), config.lanes)),
            "deltas": Out(ArrayLayout(signed(CODE_BITS), config.lanes)), "load": In(LoadSignature(lay))})

    def elaborate(self, platform):
        m = Module()
        begin = self._walk(m)
        dense = self._dense_place(m, begin)
        word = self._weight_word(m, dense)
        self._decode(m, begin, dense, word)
        return m

    def _memory(self, m: Module, space: Space, name: str):
        shape, depth = self.layouts.memories()[space]
        m.submodules[name] = memory = Memory(shape=shape, depth=depth, init=[])
        write = memory.write_port()
        m.d.comb += [write.addr.eq(self.load.address), write.data.eq(self.load.data[:size_of(shape)]),
                     write.en.eq(self.load.strobe & (self.load.space == space))]
        return memory

    def _walk(self, m: Module) -> dict:
        """Cycle 0: the column under way, and which of its words begins now."""
        lay = self.layouts
        active, work = Signal(), Signal(lay.work, reset_less=True)
        left = Signal.like(work.count)
        tap, block = Signal(lay.tap_address), Signal(max(1, lay.log_blocks))
        start, first = Signal(lay.weight_address), Signal()
        issue, load = Signal(), Signal()
        m.d.comb += [self.walking.eq(active), issue.eq(active & ~self.hold),
                     load.eq(~active | (issue & (left == 1))), self.work.ready.eq(load)]
        with m.If(issue):
            m.d.sync += [left.eq(left - 1), first.eq(0)]
            with m.If(work.walk.kind != Kind.DENSE8):
                m.d.sync += start.eq(start + 1)
            with m.Elif(block == work.walk.last_block):
                m.d.sync += [block.eq(0), tap.eq(tap + 1)]
            with m.Else():
                m.d.sync += block.eq(block + 1)
        with m.If(load):
            new = self.work.p
            m.d.sync += [active.eq(self.work.valid), work.eq(new), left.eq(new.count), first.eq(1), block.eq(0),
                         tap.eq(new.row), start.eq(new.start)]
        return {"issue": issue, "work": work, "tap": tap, "block": block, "start": start, "first": first,
                "active": active}

    def _dense_place(self, m: Module, begin: dict) -> dict:
        """Cycles 1 and 2: weight address, and the place in P of a dense word."""
        taps = self._memory(m, Space.TAPS, "taps")
        read = taps.read_port()
        m.d.comb += read.addr.eq(begin["tap"])
        work = begin["work"]
        one = {k: delay(m, begin[k], 1) for k in ("issue", "block", "start", "first")}
        kept = {k: delay(m, v, 1, reset_less=True) for k, v in (
            ("origin", work.origin), ("deltas", work.deltas), ("row", work.row), ("kind", work.walk.kind),
            ("block_bits", work.walk.block_bits), ("codebook", work.walk.codebook))}
        weight, place = Signal(self.layouts.weight_address), Signal(self.layouts.projection_address)
        m.d.sync += [
            weight.eq(one["start"] + Mux(kept["kind"] == Kind.DENSE8, read.data.weight + one["block"], 0)),
            place.eq(kept["origin"] + read.data.offset + one["block"])]
        return {"weight": weight, "place": place, "issue": delay(m, one["issue"], 1), "begun": one["issue"],
                "first": delay(m, one["first"], 1)} | {k: delay(m, v, 1, reset_less=True) for k, v in kept.items()}

    def _weight_word(self, m: Module, dense: dict):
        """Cycles 3 and 4: the weight memory with its output register."""
        weights = self._memory(m, Space.WEIGHTS, "weights")
        read = weights.read_port()
        m.d.comb += read.addr.eq(dense["weight"])
        return delay(m, read.data, 1, reset_less=True)

    def _decode(self, m: Module, begin: dict, dense: dict, word) -> None:
        """Cycles 5 to 7: weights, and the place in P of a CSC word."""
        config, lay = self.config, self.layouts
        def later(name: str, cycles: int):
            return delay(m, dense[name], cycles, reset_less=name != "issue")

        valid4, valid5 = later("issue", 2), Signal()
        place5 = later("place", 3)
        plain = Signal(ArrayLayout(signed(config.weight_bits), config.lanes), reset_less=True)
        if "dense8" in config.kinds:
            view = lay.dense8(word[:lay.dense8.size])
            m.d.sync += [plain[i].eq(view.weights[i]) for i in range(config.lanes)]
        m.d.comb += self.deltas.eq(later("deltas", 3))
        if config.csc:
            kind4 = later("kind", 2)
            row = self._csc_word(m, word, valid4, kind4, later("row", 2), later("codebook", 2), later("first", 2),
                                 valid5, plain)
            taps = self._memory(m, Space.TAPS, "taps_csc")
            read = taps.read_port()
            bits5 = later("block_bits", 3)
            m.d.comb += read.addr.eq(row >> bits5)
            row6, place6, bits6 = (delay(m, v, 1, reset_less=True) for v in (row, place5, bits5))
            csc_place = later("origin", 4) + read.data.offset + (row6 & ((1 << bits6) - 1))
            dense6 = delay(m, kind4 == Kind.DENSE8, 2, reset_less=True)
            m.d.sync += self.address.eq(Mux(dense6, place6, csc_place))
        else:
            m.d.sync += valid5.eq(valid4)
            m.d.comb += self.weights.eq(plain)
            m.d.sync += self.address.eq(delay(m, place5, 1, reset_less=True))
        valid6 = delay(m, valid5, 1)
        m.d.sync += self.valid.eq(valid6)
        under_way = begin["active"] | dense["begun"] | dense["issue"] | delay(m, dense["issue"], 1) | valid4
        m.d.comb += self.busy.eq(under_way | valid5 | valid6 | self.valid)

    def _csc_word(self, m: Module, word, valid4, kind4, row4, codebook4, first4, valid5, plain):
        """Cycle 5 of a CSC word: codebook and virtual row (returned)."""
        config, lay = self.config, self.layouts
        _, depth = lay.memories()[Space.CODEBOOK]
        bits8 = "csc8" in config.kinds
        narrow = lay.csc4(word[:lay.csc4.size]) if "csc4" in config.kinds else None
        wide = lay.csc8(word[:lay.csc8.size]) if bits8 else None
        is_csc4 = Signal()
        m.d.comb += is_csc4.eq(kind4 == Kind.CSC4)
        view = wide if narrow is None else narrow
        index = Signal(view.index.shape())
        m.d.comb += index.eq(view.index)
        decoded, codes = [], []
        for lane in range(config.lanes):
            code = Signal(8 if bits8 else 4, name=f"code{lane}")
            if narrow is not None and wide is not None:
                m.d.comb += code.eq(Mux(is_csc4, narrow.codes[lane], wide.codes[lane]))
            else:
                m.d.comb += code.eq(view.codes[lane])
            book = self._memory(m, Space.CODEBOOK, f"codebook{lane}")
            read = book.read_port()
            m.d.comb += read.addr.eq((codebook4 + code)[:address_bits(depth)])
            decoded.append(read.data)
            codes.append(code)
        nonzero = Signal()
        m.d.comb += nonzero.eq(sum((c != 0 for c in codes), start=0) != 0)
        csc5 = delay(m, kind4 != Kind.DENSE8, 1)
        m.d.sync += valid5.eq(valid4 & ((kind4 == Kind.DENSE8) | nonzero | ~index.all()))
        for lane in range(config.lanes):
            m.d.comb += self.weights[lane].eq(Mux(csc5, decoded[lane], plain[lane]))
        row, following, here = Signal(lay.row), Signal(lay.row), Signal(lay.row)
        m.d.comb += here.eq(Mux(first4, row4, following) + index)
        m.d.sync += row.eq(here)
        with m.If(valid4):
            m.d.sync += following.eq(here + 1)
        return row
