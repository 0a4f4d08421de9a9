"""The executor: what each command does."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.data import View
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import AcceleratorConfig
from hw.layouts import Layouts, Space
from hw.link.frames import FrameDecoder
from hw.link.mirror import Mirror
from hw.link.packets import FIELDS, FRAME, HEADER, INPUT, MEMORY, RUN, Command, LinkConfig, Status
from hw.link.reader import Reader
from hw.link.words import Words
from hw.link.writer import Writer
from hw.load import LOAD
from hw.queue import Queue
from hw.readout import ANSWER, READ
from hw.ring import frame_layout
from hw.sequencer import run_layout


class RingSide(wiring.Signature):
    """The ring's streams as their user sees them."""

    def __init__(self, layouts: Layouts) -> None:
        super().__init__({
            "load": Out(stream.Signature(LOAD)), "run": Out(stream.Signature(run_layout(layouts))),
            "frame": Out(stream.Signature(frame_layout(layouts))), "read": Out(stream.Signature(READ)),
            "answer": In(stream.Signature(ANSWER)), "idle": In(1)})


class Executor(wiring.Component):
    """Executes one command at a time.

    Members
    -------
    start, header : In
        execute a command; ``header`` is steady until the answer has been sent.
    resume : In
        with ``start``: only wait for the run that is going on.
    again : In
        with ``start``: a repeated CHANGES, to be answered in full.
    i : In, stream of bytes
        the payload.
    rest, drain : In
        there are bytes of it left; throw them away.
    done, status, length : Out
        executed, with this outcome and so many bytes of answer; ``status`` and ``length`` stay.
    send, o : In, Out, stream of bytes
        make these bytes.
    ring : Out, ``RingSide``

    ::

        i -> fields -> Words -> Writer --------> load
         |                +---> Reader <-------> read, answer
         |               Mirror   +-----> o
         +-------> FrameDecoder --------> frame
    """

    def __init__(self, config: AcceleratorConfig, link: LinkConfig) -> None:
        self.config, self.link = config, link
        super().__init__({
            "start": In(1), "header": In(HEADER), "resume": In(1), "again": In(1),
            "i": In(stream.Signature(8)), "rest": In(1), "drain": In(1),
            "done": Out(1), "status": Out(Status), "length": Out(16),
            "send": In(1), "o": Out(stream.Signature(8)), "ring": Out(RingSide(Layouts(config)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = self.words = Words(self.config)
        m.submodules.writer = self.writer = Writer(self.config)
        m.submodules.reader = self.reader = Reader(self.config, self.link)
        m.submodules.decoder = self.decoder = FrameDecoder(self.config, self.link)
        m.submodules.mirror = mirror = Mirror(self.link)
        ring = flipped(self.ring)
        for port, ours in (("load", self.writer.o), ("frame", self.decoder.o), ("read", self.reader.read)):
            connect(m, ours, getattr(ring, port))
        connect(m, ring.answer, self.reader.answer)
        m.submodules.answer = answer = Queue(8, depth=2)           # cuts the way from the words to the line
        connect(m, self.reader.o, answer.i)
        connect(m, answer.o, flipped(self.o))
        connect(m, self.decoder.mirror, mirror.frames)
        connect(m, self.reader.mirror, mirror.reads)
        m.d.comb += mirror.reading.eq(self.reader.busy)
        self._fields(m)
        self._control(m)
        return m

    def _fields(self, m: Module) -> None:
        """The fields of any command end at the top of one register; everybody sees them, and the payload."""
        longest = max(layout.size for layout in FIELDS.values() if layout is not None)
        self.fields, self.taking, self.zeros, self.wrong = Signal(longest), Signal(), Signal(), Signal()
        memory, run, frame, self.input = (View(layout, self.fields[longest - layout.size:])
                                          for layout in (MEMORY, RUN, FRAME, INPUT))
        self.frame = frame
        words, writer, reader, decoder = self.words, self.writer, self.reader, self.decoder
        m.d.comb += [
            words.memory.eq(memory), words.low.eq(reader.update), reader.mirror_base.eq(memory.mirror),
            decoder.frame.eq(frame), decoder.zero_data.eq(self.i.p),
            decoder.zero_write.eq(self.zeros & self.i.valid),
            self.ring.run.p.first.eq(run.first), self.ring.run.p["count"].eq(run["count"]),
            self.ring.run.p.refresh.eq(run.refresh),
            self.i.ready.eq(self.taking | self.zeros | self.drain | writer.i.ready | decoder.i.ready),
        ]
        # Steady long before they are looked at, so a register costs nothing.
        update = self.header.code != Command.READ
        m.d.sync += [words.writing.eq(self.header.code == Command.LOAD), reader.update.eq(update),
                     reader.low.eq(update & (memory.space == Space.SNAPSHOTS))]
        for block in (writer, reader):
            m.d.comb += [getattr(block.word, name).eq(getattr(words.word, name))
                         for name in ("space", "unit", "address", "word_bytes", "done")]
        for block, reading in ((writer, writer.busy), (decoder, decoder.wants)):
            m.d.comb += [block.i.valid.eq(self.i.valid & reading), block.i.p.eq(self.i.p)]

    def _control(self, m: Module) -> None:
        left, passing = Signal(range(len(self.fields) // 8 + 1)), Signal()
        m.d.comb += self.words.word.next.eq(self.writer.word.next | self.reader.word.next | passing)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += self.length.eq(0)
                    m.next = "WAIT"
                    with m.If(~self.resume):
                        m.next = "BEGIN"
                with m.If(self.send):
                    m.d.comb += [self.words.start.eq(1), self.reader.start.eq(1)]
            with m.State("BEGIN"):
                with m.Switch(self.header.code):
                    for command, layout in FIELDS.items():
                        if layout is not None:
                            with m.Case(command):
                                m.d.sync += left.eq(layout.size // 8)
                                m.next = "FIELDS"
                                with m.If(self.header.length < layout.size // 8):
                                    self._finish(m, Status.MALFORMED)
                    with m.Default():
                        self._finish(m, Status.UNKNOWN)
            with m.State("FIELDS"):
                m.d.comb += self.taking.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [self.fields.eq(Cat(self.fields[8:], self.i.p)), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "LOOK"
            with m.State("LOOK"):
                run_or_frame = Mux(self.header.code == Command.RUN, RUN.size // 8, FRAME.size // 8)
                all_given = self.header.length - run_or_frame == self.frame.elements
                no_input = (self.frame.elements != 0) & (self.decoder.input.channels == 0)
                m.d.sync += self.wrong.eq((~self.frame.changes & ~all_given) | no_input)
                m.next = "EXECUTE"
            with m.State("EXECUTE"):
                self._execute(m)
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
            self._input(m)
            self._run(m)
            self._words(m, passing)

    def _finish(self, m: Module, status: Status) -> None:
        m.d.sync += self.status.eq(status)
        m.next = "DONE"

    def _execute(self, m: Module) -> None:
        """With all fields there. Only a FRAME packet may come while the ring runs."""
        m.d.comb += self.words.start.eq(1)
        is_frame, is_run = (self.header.code == command for command in (Command.FRAME, Command.RUN))
        with m.If((is_frame | is_run) & self.wrong):
            self._finish(m, Status.MALFORMED)
        with m.Elif(is_frame):
            m.d.comb += self.decoder.first.eq(self.frame.begin)
            m.next = "PART"
        with m.Elif(~self.ring.idle):
            self._finish(m, Status.RUNNING)
        with m.Elif(is_run):
            m.next = "RUN"
        with m.Elif(self.header.code == Command.INPUT):
            m.next = "INPUT"
        with m.Else():
            m.next = "SIZE"

    def _input(self, m: Module) -> None:
        """Width and channels of the input tensor, and the zero point of each channel."""
        kept, at = Signal(INPUT), self.decoder.zero_address
        m.d.comb += self.decoder.input.eq(kept)
        with m.State("INPUT"):
            m.d.sync += [kept.eq(self.input), at.eq(0)]
            channels = self.input.channels
            m.next = "ZEROS"
            with m.If((channels == 0) | (channels > self.link.input_channels)
                      | (self.header.length != channels + INPUT.size // 8)):
                self._finish(m, Status.MALFORMED)
        with m.State("ZEROS"):
            m.d.comb += self.zeros.eq(1)
            with m.If(self.i.valid):
                m.d.sync += at.eq(at + 1)
                with m.If(at == kept.channels - 1):
                    m.d.comb += self.decoder.measure.eq(1)
                    m.next = "MEASURE"
        with m.State("MEASURE"):
            with m.If(~self.decoder.measuring):
                self._finish(m, Status.OK)

    def _run(self, m: Module) -> None:
        """Start steps, decode elements, and wait for the end unless more elements are to come."""
        run, frame, decoder = self.ring.run, self.ring.frame, self.decoder
        waited = Signal(range(self.link.timeout + 1))
        expired = waited == self.link.timeout
        m.d.sync += waited.eq(0)
        with m.State("RUN"):
            m.d.comb += [run.valid.eq(1), decoder.first.eq(1)]
            with m.If(run.ready):
                m.next = "PART"
        with m.State("PART"):
            m.d.comb += decoder.start.eq(1)
            m.next = "DECODE"
        with m.State("DECODE"):
            moving = (frame.valid & frame.ready) | (self.i.valid & self.i.ready) | decoder.moving
            with m.If(~moving):
                m.d.sync += waited.eq(waited + 1)
            with m.If(~decoder.busy & ~self.rest):
                m.next = "WAIT"
                with m.If(~self.frame.wait):
                    self._finish(m, Status.OK)
            with m.Elif(~decoder.busy | expired):
                self._finish(m, Status.STALLED)
        with m.State("WAIT"):
            m.d.sync += waited.eq(waited + 1)
            with m.If(self.ring.idle):
                self._finish(m, Status.OK)
            with m.Elif(expired):
                self._finish(m, Status.BUSY)

    def _words(self, m: Module, passing: Signal) -> None:
        """LOAD, READ, COPY and CHANGES: first a pass that adds up the bytes, then the words themselves."""
        words, writer, reader, header = self.words, self.writer, self.reader, self.header
        with m.State("SIZE"):
            over = words.word.done | words.total[16] | (words.word.word_bytes == 0)
            m.d.comb += passing.eq(~over)
            m.d.sync += [reader.count.eq(0), reader.compare.eq(0)]
            with m.If(over):
                m.next = "CHECK"
        with m.State("CHECK"):
            m.d.comb += words.start.eq(1)
            with m.If((words.total == 0) | words.total[16]):
                self._finish(m, Status.MALFORMED)
            with m.Elif(header.code == Command.LOAD):
                with m.If(words.total == header.length - MEMORY.size // 8):
                    m.d.comb += writer.start.eq(1)
                    m.next = "WRITE"
                with m.Else():
                    self._finish(m, Status.MALFORMED)
            with m.Else():
                m.d.sync += self.length.eq(words.total)
                self._finish(m, Status.OK)
                with m.If((header.code == Command.CHANGES) & ~self.again):
                    m.d.sync += [reader.count.eq(1), reader.compare.eq(1)]
                    m.d.comb += reader.start.eq(1)
                    m.next = "COUNT"
        with m.State("WRITE"):
            with m.If(~writer.busy):
                self._finish(m, Status.OK)
        with m.State("COUNT"):
            with m.If(~reader.busy):
                m.d.sync += reader.count.eq(0)
                with m.If(reader.sent < self.length):
                    m.d.sync += self.length.eq(reader.sent)
                with m.Else():
                    m.d.sync += reader.compare.eq(0)
                self._finish(m, Status.OK)
