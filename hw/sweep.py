"""Address generation of the projection sweep."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.layouts import Layouts
from hw.order import SweepOrder
from hw.pipeline import delay

FLAGS = StructLayout({"first": unsigned(1), "last": unsigned(1), "second": unsigned(1), "window_first": unsigned(1),
                      "window_last": unsigned(1), "outside": unsigned(1)})
"""What the nonlinear unit does with a word read: ``first``/``last`` operand of a sum, ``second`` operand,
``window_first``/``window_last`` tap of a max-pool window, tap ``outside`` the image (its data mean nothing)."""


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
    the operands.

    Members
    -------
    step : In
        the step descriptor, steady from ``start`` until ``busy`` falls.
    start, busy : In, Out
    enable : In
        a new output word may be begun in the next cycle (there is room for it behind the nonlinear unit).
    begun : Out
        the output word that is begun takes that room.
    stalled : Out
        ``enable`` is missing.
    slot : Out
        one read: of ``projection`` or ``snapshot`` at ``address``, and perhaps of the ``reference`` (the target's
        own snapshot word). ``valid`` with it.
    early : Out
        ``projection`` and ``group`` of the slot that comes in the next cycle.

    One read per cycle; the reference comes along with the first operand when that is a projection, else it takes a
    slot of its own, because the snapshots have one read port. Latency 5 cycles from position to ``slot``.
    Cost: two small multipliers.
    """

    LATENCY = 5

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config, self.layouts = config, Layouts(config)
        super().__init__({"step": In(self.layouts.step), "start": In(1), "busy": Out(1), "enable": In(1),
                          "begun": Out(1), "stalled": Out(1), "valid": Out(1),
                          "early": Out(SweepSlot(self.layouts).early),
                          "slot": Out(SweepSlot(self.layouts).layout)})

    def elaborate(self, platform):
        m = Module()
        issue, position = self._position(m)
        self._address(m, issue, position)
        return m

    def _position(self, m: Module):
        """The nested loops. A coordinate of the source runs one window ahead of -pad, so it is signed."""
        lay, step = self.layouts, self.step
        m.submodules.order = order = SweepOrder(self.config)
        m.d.comb += [order.step.eq(step), order.start.eq(self.start)]
        running, fresh = Signal(), Signal()                     # ``fresh``: the next read is a word's first
        node, second = Signal(lay.node_address), Signal()
        issue, own_slot = Signal(), Signal()
        apart = delay(m, step.keep & ~step.operands[0].place.projection, 1)      # steady, as the step
        m.d.comb += [
            own_slot.eq(apart & fresh), issue.eq(running & (self.enable | ~fresh)),
            self.stalled.eq(running & ~issue), self.busy.eq(running), self.begun.eq(issue & fresh)]
        y, x = (self._axis(m, name, window) for name, window in (("y", step.window_y), ("x", step.window_x)))
        operand_last = Signal()                                              # ``second == step.two``
        window_first = y["window_first"] & x["window_first"]
        window_last = y["window_last"] & x["window_last"]
        with m.If(issue):
            m.d.sync += fresh.eq(0)
        with m.If(issue & ~own_slot):
            m.d.sync += [second.eq(~operand_last), operand_last.eq(~(operand_last & step.two))]
            m.d.comb += [x["next_tap"].eq(operand_last), y["next_tap"].eq(operand_last & x["window_last"]),
                         order.advance.eq(operand_last & window_last)]
        with m.If(order.advance):
            m.d.sync += fresh.eq(1)
            m.d.comb += [x["next"].eq(order.within | order.onward), x["keep"].eq(order.onward),
                         x["back"].eq(order.back), x["start"].eq(order.down), y["next"].eq(order.down)]
            with m.If(order.back):
                m.d.sync += node.eq(node + 1 + step.two)
            with m.If(order.onward | order.down):
                m.d.sync += node.eq(step.node)
            with m.If(order.last):
                m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += [running.eq(1), node.eq(step.node), second.eq(0), operand_last.eq(~step.two), fresh.eq(1)]
            m.d.comb += [y["start"].eq(1), x["start"].eq(1)]
        reads = ~own_slot
        return issue, {
            "y": y["source"], "x": x["source"], "group": order.group, "node": node + second, "second": second,
            "reads": reads, "reference_address": order.address, "reference": step.keep & fresh,
            "first": ~second & reads, "last": operand_last & reads,
            "window_first": window_first, "window_last": window_last}

    def _axis(self, m: Module, name: str, window) -> dict:
        """One coordinate of the source, at * stride - pad + tap * dilation, kept by additions.

        Strobes: ``next_tap`` of the window; ``next`` position, ``keep`` it as the block's first, ``back`` to that;
        ``start``."""
        bits = self.layouts.position
        tap = Signal(bits, name=f"{name}_tap")
        base, block, source = (Signal(signed(bits + 2), name=f"{name}_{k}") for k in ("base", "block", "source"))
        strobes = {k: Signal(name=f"{name}_{k}") for k in ("start", "next", "keep", "back", "next_tap")}
        # ``tap == window.kernel - 1``, worked out a tap ahead.
        window_last, alone = Signal(name=f"{name}_window_last"), window.kernel == 1
        with m.If(strobes["next_tap"]):
            m.d.sync += [tap.eq(tap + 1), source.eq(source + window.dilation),
                         window_last.eq(tap == window.kernel - 2)]
            with m.If(window_last):
                m.d.sync += [tap.eq(0), source.eq(base), window_last.eq(alone)]
        with m.If(strobes["next"]):
            m.d.sync += [base.eq(base + window.stride), source.eq(base + window.stride)]
        with m.If(strobes["keep"]):
            m.d.sync += block.eq(base + window.stride)
        with m.If(strobes["back"]):
            m.d.sync += [base.eq(block), source.eq(block)]
        with m.If(strobes["start"]):
            m.d.sync += [tap.eq(0), window_last.eq(alone), base.eq(-window.pad), block.eq(-window.pad),
                         source.eq(-window.pad)]
        return strobes | {"source": source, "window_first": tap == 0, "window_last": window_last}

    def _address(self, m: Module, issue, position: dict) -> None:
        """``base + (y * pitch + (x >> phase_bits)) * blocks + (c >> group_bits)`` in five cycles."""
        lay, slot = self.layouts, self.slot
        one = {name: delay(m, value, 1) for name, value in position.items()}
        operand = Signal(lay.operand, name="operand")
        m.d.sync += operand.eq(Mux(position["second"], self.step.operands[1], self.step.operands[0]))
        place, x, y, c = operand.place, one["x"], one["y"], one["group"]
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
            flags2.outside.eq(outside),
        ]
        reads = one["reads"] & ~outside
        place2 = delay(m, place, 1)
        pixel = Signal(2 * lay.position + 1)
        m.d.sync += pixel.eq(row + column)
        place3, in_group3 = delay(m, place2, 1), delay(m, in_group, 1)
        word, within = delay(m, pixel * place3.blocks, 1), delay(m, in_group3 + place3.base, 1)
        m.d.sync += slot.address.eq(word + within)
        valid1 = delay(m, issue, 1)
        m.d.comb += [
            self.valid.eq(delay(m, valid1, 4)),
            self.early.projection.eq(delay(m, valid1 & reads & place.projection, 3)),
            self.early.group.eq(delay(m, group2, 2)),
            slot.projection.eq(delay(m, self.early.projection, 1)), slot.group.eq(delay(m, self.early.group, 1)),
            slot.snapshot.eq(delay(m, valid1 & reads & ~place.projection, 4)),
            slot.reference.eq(delay(m, valid1 & one["reference"], 4)),
            slot.reference_address.eq(delay(m, one["reference_address"], 4)),
            slot.node.eq(delay(m, one["node"], 4)),
            slot.flags.eq(delay(m, flags2, 3)),
        ]
