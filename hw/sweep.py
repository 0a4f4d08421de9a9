"""Address generation of the projection sweep."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out, connect

from hw.config import MARK_COLUMNS, AcceleratorConfig
from hw.layouts import Layouts
from hw.order import SweepOrder
from hw.pipeline import delay
from hw.scan import Scan

FLAGS = StructLayout({"first": unsigned(1), "last": unsigned(1), "second": unsigned(1), "window_first": unsigned(1),
                      "window_last": unsigned(1), "outside": unsigned(1), "left": unsigned(1), "above": unsigned(1),
                      "shared_x": unsigned(1), "shared_y": unsigned(1)})
"""What the nonlinear unit does with a word read: ``first``/``last`` operand of a sum, ``second`` operand,
``window_first``/``window_last`` tap of a max-pool window, tap ``outside`` the image (its data mean nothing), the window
leaves out what it shares with the one to the ``left`` or ``above``, tap in a column (``shared_x``) or row
(``shared_y``) that the next window has, too."""


class SweepSlot:
    """Layout of one read of the sweep."""

    def __init__(self, layouts: Layouts) -> None:
        self.layout = StructLayout({
            "projection": unsigned(1), "snapshot": unsigned(1), "reference": unsigned(1),
            "address": layouts.place.members["base"], "group": unsigned(max(1, layouts.log_groups)),
            "reference_address": unsigned(layouts.snapshot_address), "node": unsigned(layouts.node_address),
            "flags": FLAGS})
        self.early = StructLayout({name: self.layout.members[name] for name in ("projection", "group")})


class Sweep(wiring.Component):
    """Reads the operands of a node word by word, in the ``SweepOrder``; within each the max-pool window, within that
    the operands. Columns of a window that the one to its left had, if that is swept as well, are not read again; nor
    are rows that the one above had, where there is a line memory.

    Members
    -------
    ahead, refresh, scan : In
        at ``scan``, the descriptor of the sweep that comes; from then on its marks are looked through.
    step, start : In
        the same descriptor, steady from ``start``, after ``scan``, until ``busy`` falls; from then on words are read.
    busy : Out
    take, take_address, take_clear, taken
        to ``Marks``.
    pending : In
        deltas of the step before wait in PEs: rows from ``step.early`` on have to wait, too.
    enable : In
        a new output word may be begun in the next cycle (there is room for it behind the nonlinear unit).
    begun : Out
        the output word that is begun takes that room.
    stalled : Out
        ``enable`` is missing.
    slot : Out
        one read: of ``projection`` or ``snapshot`` at ``address``, and perhaps of the ``reference`` (the target's
        own snapshot word). ``valid`` with it.
    target, ends : Out
        the word that the slot is for, and that it is its last one.
    early : Out
        ``projection`` and ``group`` of the slot that comes in the next cycle.

    One read per cycle; the reference comes along with the first operand when that is a projection, else it takes a
    slot of its own, because the snapshots have one read port. From ``start`` to the first read 1 cycle, from ``scan``
    ``FIRST_READ``; from the read to ``slot`` ``LATENCY``. Cost: five small multipliers.

    ::

        marks -> Scan -> blocks -> SweepOrder -> words -> windows, operands -> addresses -> slot
    """

    FIRST_READ = Scan.LATENCY + SweepOrder.LATENCY + 1
    LATENCY = 5
    TO_SLOT = 1 + LATENCY
    """Cycles from ``start``, or from the last cycle before ``pending`` falls, to the next ``slot``."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        lay = self.layouts
        super().__init__({"ahead": In(lay.step), "scan": In(1), "step": In(lay.step), "refresh": In(1), "start": In(1),
                          "busy": Out(1), "take": Out(1),
                          "take_address": Out(lay.mark_address), "take_clear": Out(1), "taken": In(MARK_COLUMNS),
                          "pending": In(1), "enable": In(1), "begun": Out(1), "stalled": Out(1), "valid": Out(1),
                          "early": Out(SweepSlot(lay).early), "slot": Out(SweepSlot(lay).layout),
                          "target": Out(lay.target_word), "ends": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.scan = scan = Scan(self.config)
        m.submodules.order = order = SweepOrder(self.config)
        # Between ``scan`` and ``start`` the first word waits.
        open, groups = Signal(), Signal(self.layouts.group)
        with m.If(self.scan):
            m.d.sync += [open.eq(0), groups.eq(self.ahead.groups)]
        with m.If(self.start):
            m.d.sync += open.eq(1)
        m.d.comb += [scan.step.eq(self.ahead), scan.refresh.eq(self.refresh), scan.start.eq(self.scan),
                     self.take.eq(scan.take), self.take_address.eq(scan.take_address),
                     self.take_clear.eq(scan.take_clear), scan.taken.eq(self.taken), order.groups.eq(groups)]
        connect(m, scan.o, order.i)
        issue, position, running = self._position(m, order.o, open)
        m.d.comb += self.busy.eq(open & (scan.busy | order.o.valid | running))
        self._address(m, issue, position)
        return m

    def _position(self, m: Module, words, open):
        """The reads of a word, one after the other: operands, and around them the window."""
        lay, step = self.layouts, self.step
        # The word under way, and its source without padding and window.
        word, running, done = Signal(lay.sweep_word, reset_less=True), Signal(), Signal()
        base_y, base_x = (Signal(2 * lay.position, name=f"base_{k}", reset_less=True) for k in "yx")
        pixel, node = Signal(lay.pixel, reset_less=True), Signal(lay.node_address, reset_less=True)
        left, shares_x = Signal(), step.shared_x != 0           # ``left``: the shared columns are not read again
        above, shares_y = Signal(), step.shared_y != 0          # ``above``: nor are the shared rows
        early = Signal()                                        # no delta of the step before reaches its row
        fresh, second = Signal(init=1), Signal()                # ``fresh``: the next read is a word's first
        m.d.comb += words.ready.eq((open | self.start) & (~running | done))
        with m.If(words.ready):
            m.d.sync += [running.eq(words.valid), word.eq(words.p), base_y.eq(words.p.y * step.window_y.stride),
                         base_x.eq(words.p.x * step.window_x.stride), pixel.eq(words.p.row + words.p.x),
                         node.eq(step.node + (words.p.group << step.two)), left.eq(words.p.left & shares_x),
                         above.eq(words.p.above & shares_y),
                         early.eq(words.p.y < step.early)]
        issue, own_slot = Signal(), Signal()
        apart = delay(m, step.keep & ~step.operands[0].place.projection, 1)      # steady, as the step
        m.d.comb += [
            own_slot.eq(apart & fresh), issue.eq(running & ((self.enable & (early | ~self.pending)) | ~fresh)),
            self.stalled.eq(running & fresh & ~self.enable), self.begun.eq(issue & fresh)]
        y, x = (self._axis(m, name, window, shared, Mux(words.ready, coming, now))
                for name, window, shared, coming, now in (
                    ("y", step.window_y, step.shared_y, words.p.above & shares_y, above),
                    ("x", step.window_x, step.shared_x, words.p.left & shares_x, left)))
        operand_last = Signal()                                              # ``second == step.two``
        window_first = y["window_first"] & x["window_first"]
        window_last = y["window_last"] & x["window_last"]
        m.d.comb += done.eq(issue & ~own_slot & operand_last & window_last)
        with m.If(issue):
            m.d.sync += fresh.eq(done)
        with m.If(issue & ~own_slot):
            m.d.sync += [second.eq(~operand_last), operand_last.eq(~(operand_last & step.two))]
            m.d.comb += [x["next"].eq(operand_last), y["next"].eq(operand_last & x["window_last"])]
        with m.If(self.start):
            m.d.sync += operand_last.eq(~step.two)
        m.d.comb += [y["start"].eq(words.ready), x["start"].eq(words.ready)]
        reads = ~own_slot
        return issue, {
            "word": word, "base_y": base_y, "base_x": base_x, "pixel": pixel, "y": y["offset"], "x": x["offset"],
            "node": node + second, "second": second, "reads": reads, "reference": step.keep & fresh,
            "first": ~second & reads, "last": operand_last & reads,
            "window_first": window_first, "window_last": window_last, "left": left,
            "above": above, "shared_x": delay(m, step.window_x.kernel - step.shared_x, 1) <= x["tap"],
            "shared_y": delay(m, step.window_y.kernel - step.shared_y, 1) <= y["tap"]}, running

    def _axis(self, m: Module, name: str, window, shared, skipped) -> dict:
        """One coordinate of the window: ``offset`` is tap * dilation - pad, kept by additions.

        ``skipped``: begin behind the ``shared`` ones. Strobes: ``next`` tap, behind the last the first; ``start``."""
        bits = self.layouts.position
        tap, offset = Signal(bits, name=f"{name}_tap"), Signal(signed(bits + 2), name=f"{name}_offset")
        strobes = {k: Signal(name=f"{name}_{k}") for k in ("start", "next")}
        # ``tap == window.kernel - 1``, worked out a tap ahead.
        window_last, window_first = Signal(name=f"{name}_window_last"), Signal(name=f"{name}_window_first")
        begin = Mux(skipped, shared, 0)
        with m.If(strobes["next"]):
            m.d.sync += [tap.eq(tap + 1), offset.eq(offset + window.dilation), window_last.eq(tap == window.kernel - 2),
                         window_first.eq(0)]
        with m.If((strobes["next"] & window_last) | strobes["start"]):
            m.d.sync += [tap.eq(begin), offset.eq(begin - window.pad), window_last.eq(window.kernel == begin + 1),
                         window_first.eq(1)]
        return strobes | {"tap": tap, "offset": offset, "window_first": window_first, "window_last": window_last}

    def _address(self, m: Module, issue, position: dict) -> None:
        """``base + (y * pitch + (x >> phase_bits)) * blocks + (c >> group_bits)`` in five cycles."""
        lay, slot = self.layouts, self.slot
        one = {name: delay(m, value, 1) for name, value in position.items() if name not in ("y", "x")}
        operand = Signal(lay.operand, name="operand")
        y, x = (Signal(signed(lay.position + 2), name=k) for k in "yx")
        m.d.sync += [operand.eq(Mux(position["second"], self.step.operands[1], self.step.operands[0])),
                     y.eq(position["base_y"] + position["y"]), x.eq(position["base_x"] + position["x"])]
        place, c = operand.place, one["word"].group
        outside = (x < 0) | (y < 0) | (x >= operand.width) | (y >= operand.height)
        # cycle 2: row, group; cycle 3: pixel; cycle 4: its first word; cycle 5: word
        row, column = Signal(2 * lay.position), Signal(lay.position)
        in_group = Signal(lay.group)
        group2, flags2 = Signal(max(1, lay.log_groups)), Signal(FLAGS)
        in_phase, in_row = (1 << place.phase_bits) - 1, (1 << place.group_bits) - 1
        m.d.sync += [
            row.eq(y[:lay.position] * place.pitch), column.eq(x[:lay.position] >> place.phase_bits),
            in_group.eq(c >> place.group_bits),
            group2.eq(((x[:lay.position] & in_phase) << place.group_bits) | (c & in_row)),
            flags2.first.eq(one["first"]), flags2.last.eq(one["last"]), flags2.second.eq(one["second"]),
            flags2.window_first.eq(one["window_first"]), flags2.window_last.eq(one["window_last"]),
            *(flags2[name].eq(one[name]) for name in ("left", "above", "shared_x", "shared_y")),
            flags2.outside.eq(outside),
        ]
        reads = one["reads"] & ~outside
        place2 = delay(m, place, 1)
        pixel = Signal(2 * lay.position + 1)
        m.d.sync += pixel.eq(row + column)
        place3, in_group3 = delay(m, place2, 1), delay(m, in_group, 1)
        word, within = delay(m, pixel * place3.blocks, 1), delay(m, in_group3 + place3.base, 1)
        m.d.sync += slot.address.eq(word + within)
        words = delay(m, one["pixel"] * self.step.groups, 1)
        valid1 = delay(m, issue, 1)
        m.d.comb += [
            self.valid.eq(delay(m, valid1, 4)),
            self.early.projection.eq(delay(m, valid1 & reads & place.projection, 3)),
            self.early.group.eq(delay(m, group2, 2)),
            slot.projection.eq(delay(m, self.early.projection, 1)), slot.group.eq(delay(m, self.early.group, 1)),
            slot.snapshot.eq(delay(m, valid1 & reads & ~place.projection, 4)),
            slot.reference.eq(delay(m, valid1 & one["reference"], 4)),
            slot.reference_address.eq(delay(m, words + delay(m, self.step.snapshot + one["word"].group, 1), 3)),
            slot.node.eq(delay(m, one["node"], 4)),
            slot.flags.eq(delay(m, flags2, 3)),
            self.ends.eq(self.valid & slot.flags.last & slot.flags.window_last),
            self.target.address.eq(slot.reference_address),
            self.target.line.eq(delay(m, delay(m, one["word"].x * self.step.groups, 1)
                                      + delay(m, one["word"].group, 1), 3, reset_less=True)),
        ]
        m.d.comb += [self.target[name].eq(delay(m, one["word"][name], 4, reset_less=True))
                     for name in ("y", "x", "group")]
