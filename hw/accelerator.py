"""The accelerator: ring and host link behind two streams of bytes."""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import AcceleratorConfig
from hw.link.link import Link
from hw.link.packets import LinkConfig
from hw.load import NO_IMAGES, Images, images_hash
from hw.ring import Ring


class Accelerator(wiring.Component):
    """What a board or a simulator hangs on a line.

    Parameters
    ----------
    config : AcceleratorConfig
    link : LinkConfig
    images : Images
        a program that is there at power-up.

    Members
    -------
    i, o : streams of bytes
        packets from and to the host (docs/link.md). Bytes are not taken while a packet is executed.
    busy : Out
        a run is going on.
    error : Out
        the last packet was damaged or refused.

    A session's end (RESET, or a stall) resets the ring but not its memories.
    """

    def __init__(self, config: AcceleratorConfig, link: LinkConfig, images: Images = NO_IMAGES) -> None:
        self.config, self.link, self.images = config, link, images
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), "busy": Out(1),
                          "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = Link(self.config, self.link, images_hash(self.images))
        ring = Ring(self.config, self.images)
        m.submodules.ring = ResetInserter(link.reset)(ring)
        connect(m, flipped(self.i), link.i)
        connect(m, link.o, flipped(self.o))
        m.d.comb += [self.busy.eq(~ring.idle), self.error.eq(link.error)]
        m.d.comb += link.ring.idle.eq(ring.idle)
        for port in ("load", "run", "frame", "read"):
            connect(m, getattr(link.ring, port), getattr(ring, port))
        connect(m, ring.answer, link.ring.answer)
        return m
