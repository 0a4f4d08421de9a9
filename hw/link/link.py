"""The link: takes packets, has them executed, answers."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space
from hw.link.checksum import Checksum
from hw.link.executor import Executor, RingSide
from hw.link.packets import IDENTITY, Command, LinkConfig, Status, identity
from hw.link.receiver import Receiver
from hw.link.transmitter import Transmitter


class Link(wiring.Component):
    """One packet at a time: receive, admit, execute, answer.

    Parameters
    ----------
    config : AcceleratorConfig
    link : LinkConfig
    program : int
        ``images_hash`` of what the memories hold at power-up, 0 for nothing.

    Members
    -------
    i, o : streams of bytes
        from and to the host.
    ring : Out, ``RingSide``
    reset : Out
        the ring forgets what it is doing.
    error : Out
        the last packet was damaged or refused.

    Every packet that is intact, of the present session and next in sequence is executed exactly once;
    docs/link.md says what happens with others. Bytes are not taken while a packet is executed. Latency from
    the last byte of a packet to the first one of its answer: about 25 cycles and the work.

    ::

        i -> Receiver --> admission --> Executor <--> ring
                 |            |            |
              Checksum        v            |
                 |       Transmitter <-----+
        o <------+------------+
    """

    def __init__(self, config: AcceleratorConfig, link: LinkConfig, program: int = 0) -> None:
        self.config, self.link, self.program = config, link, program
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)),
                          "ring": Out(RingSide(Layouts(config))), "reset": Out(1), "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.checksum = checksum = Checksum()
        m.submodules.receiver = self.receiver = Receiver(self.link)
        m.submodules.transmitter = self.transmitter = Transmitter()
        self.executor = Executor(self.config, self.link)
        m.submodules.executor = ResetInserter(self.reset)(self.executor)
        connect(m, flipped(self.i), self.receiver.i)
        connect(m, self.transmitter.o, flipped(self.o))
        connect(m, self.receiver.checksum, checksum.receiver)
        connect(m, self.transmitter.checksum, checksum.transmitter)
        connect(m, self.receiver.o, self.executor.i)
        connect(m, self.executor.ring, flipped(self.ring))
        m.d.comb += [self.executor.header.eq(self.receiver.header), self.executor.rest.eq(self.receiver.rest)]
        self._admit(m)
        return m

    def _admit(self, m: Module) -> None:
        """Which packets are executed, and with what every one is answered."""
        receiver, transmitter, executor = self.receiver, self.transmitter, self.executor
        header = receiver.header
        session, sequence, status = Signal(16), Signal(8), Signal(Status)
        identify, executed, identified = header.code == Command.IDENTIFY, Signal(), Signal()
        repeated, ends = header.sequence == sequence, Signal()
        reads = Cat(header.code == c for c in (Command.READ, Command.COPY, Command.CHANGES)).any()
        m.d.comb += [
            transmitter.header.code.eq(status), transmitter.header.session.eq(session),
            transmitter.header.sequence.eq(Mux(receiver.status == Status.OK, header.sequence, sequence)),
            executor.again.eq(repeated),
        ]
        m.d.sync += self.reset.eq(ends)                     # a register: it goes everywhere
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [transmitter.header.length.eq(0), executed.eq(0), status.eq(receiver.status)]
                with m.If(receiver.valid):
                    m.next = "ADMIT"
                    with m.If(receiver.status != Status.OK):
                        m.next = "ANSWER"
            with m.State("ADMIT"):
                m.next = "ANSWER"
                with m.If(identify):
                    m.d.comb += identified.eq(1)
                    m.d.sync += transmitter.header.length.eq(IDENTITY.size // 8)
                with m.Elif(header.code == Command.RESET):
                    m.d.sync += [session.eq(header.session), sequence.eq(header.sequence)]
                    m.d.comb += ends.eq(~repeated | (header.session != session))
                with m.Elif((session == 0) | (header.session != session)):
                    m.d.sync += status.eq(Status.SESSION)
                with m.Elif(repeated & ~reads):
                    m.d.sync += status.eq(executor.status)
                    with m.If(executor.status == Status.BUSY):
                        m.d.comb += [executor.start.eq(1), executor.resume.eq(1)]
                        m.next = "EXECUTE"
                with m.Elif(~repeated & (header.sequence != (sequence + 1)[:8])):
                    m.d.sync += status.eq(Status.SEQUENCE)
                with m.Else():
                    m.d.comb += executor.start.eq(1)
                    m.next = "EXECUTE"
            with m.State("EXECUTE"):
                with m.If(executor.done):
                    m.d.sync += [status.eq(executor.status), transmitter.header.length.eq(executor.length),
                                 sequence.eq(header.sequence), executed.eq(executor.length != 0)]
                    m.next = "ANSWER"
                    with m.If(executor.status == Status.STALLED):
                        m.d.comb += ends.eq(1)
                        m.d.sync += session.eq(0)
            with m.State("ANSWER"):
                m.d.comb += [transmitter.start.eq(1), executor.send.eq(executed)]
                m.d.sync += self.error.eq((status != Status.OK) & (status != Status.BUSY))
                m.next = "ANSWERING"
            with m.State("ANSWERING"):
                m.d.comb += executor.drain.eq(1)
                with m.If(~transmitter.busy & ~receiver.rest):
                    m.d.comb += receiver.done.eq(1)
                    m.next = "IDLE"
        self._payload(m, executed, identified)

    def _payload(self, m: Module, executed: Signal, identified: Signal) -> None:
        """What an answer carries: the executor's bytes, or who we are."""
        length = IDENTITY.size // 8
        o, at = self.transmitter.i, Signal(range(length + 1), init=length)
        with m.If(executed):
            m.d.comb += [o.valid.eq(self.executor.o.valid), o.p.eq(self.executor.o.p),
                         self.executor.o.ready.eq(o.ready)]
        with m.Else():
            known, built_in = (
                Const(int.from_bytes(identity(self.config, self.link, program), "little"), 8 * length)
                for program in (0, self.program))
            known = Mux(self._unchanged(m), built_in, known) if self.program else known
            m.d.comb += [o.valid.eq(at != length), o.p.eq(known.word_select(at, 8))]
            with m.If(o.valid & o.ready):
                m.d.sync += at.eq(at + 1)
        with m.If(identified):
            m.d.sync += at.eq(0)

    def _unchanged(self, m: Module) -> Signal:
        """The memories hold the program of power-up: the host has written nothing but steps (which have the thresholds)
        and snapshots. A reset does not change memories, so it does not change this either."""
        unchanged, load = Signal(init=1, reset_less=True), self.ring.load
        with m.If(load.valid & (load.p.space != Space.STEPS) & (load.p.space != Space.SNAPSHOTS)):
            m.d.sync += unchanged.eq(0)
        return unchanged
