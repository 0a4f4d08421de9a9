"""The delta unit: compare with the snapshot, apply the threshold rule, update the snapshot."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import CODE_BITS, AcceleratorConfig
from hw.layouts import Layouts
from hw.pipeline import delay


class DeltaUnit(wiring.Component):
    """The threshold rule (paper, sections 3.1 and 3.4) on S elements per cycle.

    Members
    -------
    step, refresh : In
        threshold, ``truncate`` (else hold), ``direct`` (send values, not deltas), ``keep`` (there is a snapshot);
        a refresh compares with 0 at threshold 1. Steady from ``start`` on.
    i, i_valid : In
        results.
    target : In, stream of ``target_word``
        whose they are, one per result, there before it.
    reference : In, stream of snapshot words
        one per result, there before it.
    o : Out, stream of ``delta_word``
        ``LATENCY`` cycles later, only words that are not all 0. There must be room: ``ready`` is not looked at.
    done : Out
        a word has been dealt with: 1 without, ``o.valid`` tells with output.
    write, write_address, write_data : Out
        new snapshot words.
    deltas, dropped : Out
        elements sent by the rule, and sum of squares of the changes that ``truncate`` lost (hold loses none), 3 and 5
        cycles after their word.

    One word per cycle. Cost: S multipliers of 9 x 9 bits (squares).
    """

    LATENCY = 3

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({
            "step": In(lay.step), "refresh": In(1), "i": In(lay.codes), "i_valid": In(1),
            "target": In(stream.Signature(lay.target_word)),
            "reference": In(stream.Signature(lay.codes)), "o": Out(stream.Signature(lay.delta_word)), "done": Out(1),
            "write": Out(1), "write_address": Out(lay.snapshot_address), "write_data": Out(lay.codes),
            "deltas": Out(range(config.sweep + 1)), "dropped": Out(range((config.sweep << 16) + 1))})

    def elaborate(self, platform):
        m = Module()
        step = self.step
        # As steady as the step.
        keep, limit, minus_limit = Signal(), Signal(CODE_BITS), Signal(signed(CODE_BITS + 1))
        m.d.sync += [keep.eq(step.keep & ~self.refresh), minus_limit.eq(-limit),
                     limit.eq(Mux(self.refresh | (step.threshold == 0), 1, step.threshold))]
        m.d.comb += self.reference.ready.eq(self.i_valid & step.keep)
        one, two = delay(m, self.i_valid, 1), delay(m, self.i_valid, 2)
        m.d.sync += [self.done.eq(two), self.write.eq(one & step.keep)]
        nonzero, sent_mask = Signal(self.config.sweep), Signal(self.config.sweep)
        squares = []
        for lane in range(self.config.sweep):
            x, ref, d = (Signal(signed(CODE_BITS), name=f"{name}{lane}", reset_less=True) for name in ("x", "ref", "d"))
            sent, value = Signal(name=f"sent{lane}"), Signal(signed(CODE_BITS), name=f"value{lane}")
            before = Mux(keep, self.reference.p[lane], 0)
            m.d.sync += [x.eq(self.i[lane]), ref.eq(before), d.eq(self.i[lane] - before)]
            m.d.comb += [sent.eq((d >= limit) | (d <= minus_limit)), value.eq(Mux(sent | step.truncate, x, ref))]
            m.d.sync += [self.write_data[lane].eq(value), sent_mask[lane].eq(sent)]
            # what leaves: the value itself or the delta that was sent
            out = Signal(signed(CODE_BITS), name=f"out{lane}")
            rest = Signal(signed(CODE_BITS), name=f"rest{lane}")
            m.d.sync += [out.eq(Mux(step.direct, value, Mux(sent, d, 0))), rest.eq(Mux(sent | ~step.truncate, 0, d))]
            m.d.comb += nonzero[lane].eq(out != 0)
            m.d.sync += self.o.p.deltas[lane].eq(out)
            squares.append(delay(m, rest * rest, 1, reset_less=True))
        m.d.sync += [
            self.o.valid.eq(two & (nonzero != 0)), self.o.p.mask.eq(nonzero),
            self.deltas.eq(Mux(two, sum(sent_mask[i] for i in range(self.config.sweep)), 0)),
            self.dropped.eq(delay(m, Mux(delay(m, two, 1), sum(squares), 0), 1)),
        ]
        target, p = delay(m, self.target.p, 2, reset_less=True), self.o.p
        m.d.comb += [self.target.ready.eq(self.i_valid), self.write_address.eq(target.address)]
        m.d.sync += [p.y.eq(target.y), p.x.eq(target.x), p.group.eq(target.group)]
        return m
