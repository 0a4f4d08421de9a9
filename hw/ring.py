"""The ring: sweep, nonlinear unit, delta unit, FIFO, LNZD, scatter, PE array, and round again."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import AcceleratorConfig
from hw.counters import Counters
from hw.delta import DeltaUnit
from hw.expand import Expand, ItemLayout
from hw.layouts import Layouts, StepKind
from hw.lnzd import LeadingNonZero
from hw.load import LOAD, NO_IMAGES, Images, Loader, contents_of
from hw.marker import Marker
from hw.marks import Marks
from hw.maxpool import MaxPool
from hw.pe import ProcessingElement
from hw.pipeline import delay
from hw.queue import Queue
from hw.readout import ANSWER, READ, Readout
from hw.requant import Requantise
from hw.scatter import Scatter
from hw.sequencer import Sequencer, run_layout
from hw.snapshots import Snapshots
from hw.sweep import Sweep
from hw.walker import Walker

REFERENCE_DEPTH = 32
"""Snapshot words between their read and the delta unit (at most 20 cycles)."""
TARGET_DEPTH = 40
"""Words between their last read and the delta unit (33 cycles)."""


def frame_layout(layouts: Layouts) -> StructLayout:
    """One word of the host's frame deltas; ``last`` ends the frame (its deltas may all be 0)."""
    return StructLayout({"deltas": layouts.codes, "y": unsigned(layouts.position), "x": unsigned(layouts.position),
                         "group": unsigned(layouts.group), "last": unsigned(1)})


class Ring(wiring.Component):
    """The whole accelerator behind five streams. ``images``: what its memories hold at power-up.

    Members
    -------
    load : In, stream of ``LOAD``
        writes memories; only while ``idle``.
    run : In, stream of ``run_layout``
        runs steps.
    frame : In, stream of ``frame_layout``
        the deltas of the input tensor, taken by steps of kind FRAME.
    read, answer : streams of ``READ`` and ``ANSWER``
        reads projections, snapshots and counters while ``idle``.
    idle : Out
        no step runs.

    ::

           marks <---------------------------------------------- marker
             v                                                     |
        +-> sweep -> P / snapshots -> requant -> max-pool -> delta -> FIFO -> expand -> LNZD -> scatter --+
        +-------------------------------- PE array <------------------------------------------------------+
    """

    def __init__(self, config: AcceleratorConfig, images: Images = NO_IMAGES) -> None:
        self.config, self.layouts, self.images = config, Layouts(config), images
        super().__init__({"load": In(stream.Signature(LOAD)), "run": In(stream.Signature(run_layout(self.layouts))),
                          "frame": In(stream.Signature(frame_layout(self.layouts))),
                          "read": In(stream.Signature(READ)), "answer": Out(stream.Signature(ANSWER)), "idle": Out(1)})

    def elaborate(self, platform):
        m, config, contents = Module(), self.config, contents_of(self.images)
        m.submodules.loader = loader = Loader(self.layouts)
        m.submodules.sequencer = sequencer = Sequencer(config, contents)
        m.submodules.sweep = sweep = Sweep(config)
        m.submodules.snapshots = snapshots = Snapshots(config)
        m.submodules.requant = requant = Requantise(config, contents)
        m.submodules.maxpool = maxpool = MaxPool(config)
        m.submodules.delta = delta = DeltaUnit(config)
        m.submodules.fifo = fifo = Queue(self.layouts.delta_word, depth=config.fifo_depth)
        m.submodules.expand = expand = Expand(config, contents)
        m.submodules.lnzd = lnzd = LeadingNonZero(width=config.sweep, tag=ItemLayout(self.layouts).tag)
        m.submodules.scatter = scatter = Scatter(config)
        m.submodules.marks = marks = Marks(config)
        m.submodules.marker = marker = Marker(config, contents)
        pes = [ProcessingElement(config, contents_of(self.images, i), index=i) for i in range(config.pes)]
        for i, pe in enumerate(pes):
            m.submodules[f"pe{i}"] = pe
        m.submodules.readout = readout = Readout(config, wait=ProcessingElement.SWEEP_LATENCY + 2)
        connect(m, flipped(self.load), loader.i)
        connect(m, flipped(self.run), sequencer.run)
        connect(m, flipped(self.read), readout.i)
        connect(m, readout.o, flipped(self.answer))
        for block in (sequencer, snapshots, requant, expand, marker, *pes):
            m.d.comb += [getattr(block.load, name).eq(getattr(loader.load, name))
                         for name in loader.load.signature.members]
        step = sequencer.step
        m.d.comb += [self.idle.eq(sequencer.idle), readout.idle.eq(sequencer.idle)]
        for block in (sweep, requant, delta, expand, marker):
            m.d.comb += block.step.eq(step)
        m.d.comb += [sweep.ahead.eq(sequencer.ahead), sweep.scan.eq(sequencer.scan)]
        for block in (sweep, delta, marker):
            m.d.comb += block.refresh.eq(sequencer.refresh)
        m.d.comb += [marks.take.eq(sweep.take), marks.take_address.eq(sweep.take_address),
                     marks.take_clear.eq(sweep.take_clear), sweep.taken.eq(marks.taken)]
        connect(m, marker.set, marks.set)
        self._read_operands(m, sweep, pes, snapshots, requant, maxpool, readout)
        self._nonlinear(m, sequencer, sweep, snapshots, requant, maxpool, delta)
        frame_busy = self._deltas(m, sequencer, sweep, delta, fifo)
        self._fork(m, fifo.o, expand, marker)
        connect(m, expand.o, lnzd.i)
        connect(m, lnzd.o, scatter.i)
        blocked = self._array(m, sequencer, lnzd, scatter, pes)
        in_flight = self._credits(m, step, sweep, delta, fifo)
        deltas = [sweep.busy, frame_busy, in_flight, fifo.level != 0]
        m.d.comb += [marker.start.eq(sequencer.start), marker.more.eq(Cat(deltas).any())]
        before = Cat(*deltas, expand.busy, scatter.busy, marker.busy).any()
        old = Cat(pe.old for pe in pes).any()
        m.d.comb += [pe.turn.eq(sequencer.turn) for pe in pes]
        m.d.comb += [sweep.pending.eq(delay(m, old, 1)),
                     sequencer.fed.eq(~(before | old | Cat(pe.behind for pe in pes).any())),
                     sequencer.quiet.eq(~(marker.more | marker.busy)),
                     sequencer.finished.eq(~(before | Cat(pe.waiting for pe in pes).any())),
                     sequencer.drained.eq(~(before | Cat(pe.busy for pe in pes).any()))]
        self._count(m, sequencer, sweep, delta, scatter, pes, blocked, readout)
        return m

    def _read_operands(self, m: Module, sweep, pes, snapshots, requant, maxpool, readout) -> None:
        """Words of P (from one group of PEs) and of snapshots reach the nonlinear unit in the same cycle."""
        slot, config = sweep.slot, self.config
        wait = ProcessingElement.SWEEP_LATENCY
        group, address = Signal.like(slot.group), Signal.like(pes[0].sweep_address)
        m.d.comb += [group.eq(Mux(readout.active, readout.group, slot.group)),
                     address.eq(Mux(readout.active, readout.address, slot.address))]
        late = delay(m, address, Walker.LATENCY, reset_less=True)
        for i, pe in enumerate(pes):
            # The request holds the walk in the very cycle, so it comes from a register; never both of them ask.
            asked = Cat(ask.projection & (ask.group == i // config.group_pes) for ask in (sweep.early, readout)).any()
            m.d.comb += [pe.sweep.eq(delay(m, asked, 1)), pe.sweep_address.eq(late)]
        words = Array(Cat(pe.value for pe in pes[g * config.group_pes:(g + 1) * config.group_pes])
                      for g in range(config.groups))
        projections = Signal(ArrayLayout(signed(config.accumulator_bits), config.sweep), reset_less=True)
        m.d.sync += projections.eq(words[delay(m, group, wait, reset_less=True)])
        early = wait + 1 - snapshots.LATENCY
        read = delay(m, slot, early, reset_less=True)
        m.d.comb += snapshots.address.eq(Mux(readout.active, readout.address,
                                             Mux(read.snapshot, read.address, read.reference_address)))
        m.d.comb += [readout.projections.eq(projections), readout.snapshots.eq(snapshots.data)]
        from_projection = delay(m, read.projection, snapshots.LATENCY, reset_less=True)
        for lane in range(config.sweep):
            m.d.sync += requant.i[lane].eq(Mux(from_projection, projections[lane], snapshots.data[lane]))
        arrive = wait + 2
        m.d.comb += [requant.node.eq(delay(m, slot.node, arrive - requant.TABLE_LATENCY, reset_less=True)),
                     requant.i_valid.eq(delay(m, sweep.valid, arrive)),
                     *(port.eq(delay(m, target, arrive + requant.LATENCY, reset_less=True)) for port, target in (
                         (maxpool.i_group, sweep.target.group), (maxpool.i_line, sweep.target.line))),
                     requant.i_flags.eq(delay(m, slot.flags, arrive, reset_less=True))]

    def _nonlinear(self, m: Module, sequencer, sweep, snapshots, requant, maxpool, delta) -> None:
        """requant -> max-pool -> delta unit, and the snapshot word that each result is compared with."""
        m.submodules.references = references = Queue(self.layouts.codes, depth=REFERENCE_DEPTH)
        m.submodules.targets = targets = Queue(self.layouts.target_word, depth=TARGET_DEPTH)
        m.d.comb += [
            maxpool.i.eq(requant.o), maxpool.i_valid.eq(requant.o_valid), maxpool.i_flags.eq(requant.o_flags),
            delta.i.eq(maxpool.o), delta.i_valid.eq(maxpool.o_valid),
            targets.i.valid.eq(sweep.ends), targets.i.p.eq(sweep.target),
            references.i.valid.eq(delay(m, sweep.valid & sweep.slot.reference, ProcessingElement.SWEEP_LATENCY + 1)),
            references.i.p.eq(snapshots.data),
            snapshots.write.eq(delta.write), snapshots.write_address.eq(delta.write_address),
            snapshots.write_data.eq(delta.write_data),
            sweep.start.eq(sequencer.start & (sequencer.step.kind == StepKind.SWEEP)),
        ]
        connect(m, references.o, delta.reference)
        connect(m, targets.o, delta.target)

    def _deltas(self, m: Module, sequencer, sweep, delta, fifo):
        """The FIFO takes the delta unit's words, or in a FRAME step the host's that are not all 0."""
        taking, word = Signal(), self.frame.p
        mask = Cat(word.deltas[i] != 0 for i in range(self.config.sweep))
        with m.If(sequencer.start):
            m.d.sync += taking.eq(sequencer.step.kind == StepKind.FRAME)
        with m.Elif(self.frame.valid & self.frame.ready & word.last):
            m.d.sync += taking.eq(0)
        m.d.comb += delta.o.ready.eq(fifo.i.ready)
        with m.If(taking):
            m.d.comb += [self.frame.ready.eq(fifo.i.ready), fifo.i.valid.eq(self.frame.valid & (mask != 0)),
                         fifo.i.p.mask.eq(mask)]
            m.d.comb += [fifo.i.p[name].eq(word[name]) for name in ("deltas", "y", "x", "group")]
        with m.Else():
            m.d.comb += [fifo.i.valid.eq(delta.o.valid), fifo.i.p.eq(delta.o.p)]
        return taking

    def _fork(self, m: Module, words, expand, marker) -> None:
        """Every delta word to the expansion, and its pixel to the marker, in one cycle."""
        m.d.comb += [expand.i.p.eq(words.p), expand.i.valid.eq(words.valid & marker.ready),
                     words.ready.eq(expand.i.ready & marker.ready), marker.strobe.eq(words.valid & words.ready),
                     marker.y.eq(words.p.y), marker.x.eq(words.p.x)]

    def _credits(self, m: Module, step, sweep, delta, fifo):
        """An output word of the sweep is begun only when the FIFO has room for it; a word of zeros gives it back."""
        used, full, back, depth = Signal(range(self.config.fifo_depth + 1)), Signal(), Signal(2), self.config.fifo_depth
        m.d.comb += [back.eq((delta.done & ~delta.o.valid)
                             + ((step.kind == StepKind.SWEEP) & fifo.o.valid & fifo.o.ready)),
                     sweep.enable.eq(~full)]
        m.d.sync += [used.eq(used + sweep.begun - back),
                     full.eq((back == 0) & (full | (sweep.begun & (used == depth - 1))))]
        return used != 0

    def _array(self, m: Module, sequencer, lnzd, scatter, pes):
        """The broadcast reaches all PEs at once, or waits for the one whose queue is full."""
        blocked, blocked_next = Signal(), Cat(pe.blocked for pe in pes).any()
        m.d.sync += blocked.eq(blocked_next)
        m.d.comb += [scatter.advance.eq(~blocked), lnzd.ready_next.eq(~blocked_next),
                     sequencer.clearing.eq(Cat(pe.clearing for pe in pes).any())]
        for pe in pes:
            m.d.comb += [pe.column.eq(scatter.column), pe.work.eq(scatter.work), pe.advance.eq(~blocked),
                         pe.clear.eq(sequencer.clear)]
        return blocked

    def _count(self, m: Module, sequencer, sweep, delta, scatter, pes, blocked, readout) -> None:
        taken = Signal(self.config.sweep)
        with m.If(self.frame.valid & self.frame.ready):
            m.d.comb += taken.eq(Cat(self.frame.p.deltas[i] != 0 for i in range(self.config.sweep)))
        taken = delay(m, taken, 1)
        sent = Signal(range(self.config.sweep + 1))
        m.d.comb += sent.eq(delta.deltas + sum(taken[i] for i in range(self.config.sweep)))       # never both
        add = {"cycles": ~sequencer.idle, "deltas": sent, "broadcasts": scatter.broadcast, "macs": scatter.macs,
               "broadcast_stalls": blocked, "sweep_stalls": sweep.stalled,
               "pe_stalls": sum(pe.held for pe in pes), "dropped": delta.dropped}
        widths = {name: unsigned(len(value) if hasattr(value, "__len__") else value.shape().width)
                  for name, value in add.items()}
        m.submodules.counters = counters = Counters(self.config, widths=widths)
        m.d.comb += [counters.add[name].eq(value) for name, value in add.items()]
        m.d.comb += [counters.store.eq(sequencer.store), counters.index.eq(sequencer.index),
                     counters.address.eq(readout.address), readout.counters.eq(counters.data)]
