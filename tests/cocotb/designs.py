"""What the cocotb tests simulate: the blocks side by side in one design, and a small accelerator."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from hw.config import AcceleratorConfig
from hw.delta import DeltaUnit
from hw.link.checksum import Checksum
from hw.link.packets import LinkConfig
from hw.link.receiver import Receiver
from hw.link.transmitter import Transmitter
from hw.maxpool import MaxPool
from hw.queue import Queue
from hw.requant import Requantise
from tests.cocotb.monitors import Rude
from tests.hw.test_pe_blocks import SMALL, Pe
from tests.hw.test_scatter import ExpandToBus
from tests.hw.test_streams import LnzdWithQueue
from tests.random_graphs import Limits

BLOCK_LINK = LinkConfig(buffer_bytes=64, mirror_bytes=16, input_channels=4, timeout=30)
PE_CONFIG = AcceleratorConfig(pes=4, lanes=2, sweep=2, kinds=("dense8", "csc4"), queue_depth=2, **SMALL)
BLOCK_CONFIG = AcceleratorConfig(pes=4, lanes=2, sweep=4, projection_words=64, snapshot_words=64, node_words=32,
                                 weight_words=64, column_words=16, tap_words=16, codebook_words=32, max_blocks=4,
                                 axis_words=16, channel_words=4, step_words=4, edge_words=4, clear_words=4,
                                 max_size=15, max_channels=16)
ACCELERATOR = AcceleratorConfig(pes=4, lanes=2, sweep=4, queue_depth=2, projection_words=64, weight_words=128,
                                column_words=256, tap_words=128, codebook_words=128, snapshot_words=256, node_words=16,
                                axis_words=64, channel_words=16, step_words=16, edge_words=16, clear_words=16,
                                max_size=8, max_channels=32, max_blocks=16)
LINK = LinkConfig(buffer_bytes=512, mirror_bytes=1024, input_channels=8, timeout=300)
LIMITS = Limits(channels=5, size=5, layers=3)
"""Random graphs that the accelerator holds."""


class Checked(wiring.Component):
    """A receiver or transmitter with the CRC circuit that it shares with the other."""

    def __init__(self, block: Receiver | Transmitter, side: str) -> None:
        self.block, self.side = block, side
        super().__init__({k: v for k, v in block.signature.members.items() if k != "checksum"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.block, m.submodules.checksum = self.block, Checksum()
        connect(m, self.block.checksum, getattr(m.submodules.checksum, self.side))
        wire(m, self, self.block)
        return m


def wire(m: Module, outer: wiring.Component, inner: wiring.Component) -> None:
    """Bring ports of ``inner`` out to the ports of the same name."""
    for name in outer.signature.members:
        wire_port(m, outer, inner, name)


def wire_port(m: Module, outer: wiring.Component, inner: wiring.Component, name: str) -> None:
    """Bring one port out."""
    member, ours, theirs = outer.signature.members[name], getattr(outer, name), getattr(inner, name)
    if member.is_signature:
        connect(m, theirs, flipped(ours))
    else:
        m.d.comb += ours.eq(theirs) if member.flow == Out else theirs.eq(ours)


class AlonePe(wiring.Component):
    """A PE whose broadcast moves on (``advance``) whenever it was not blocked before, as in a ring of one."""

    def __init__(self) -> None:
        self.pe = Pe(PE_CONFIG, 0).dut
        super().__init__({**self.pe.signature.members, "advance": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.pe = self.pe
        for name in self.signature.members:
            if name != "advance":
                wire_port(m, self, self.pe, name)
        blocked = Signal()
        m.d.sync += blocked.eq(self.pe.blocked)
        m.d.comb += [self.advance.eq(~blocked), self.pe.advance.eq(self.advance)]
        return m


class Blocks(wiring.Component):
    """Every block with its ports as ``block__port``."""

    def __init__(self) -> None:
        self.blocks = {
            "queue1": Queue(unsigned(8), depth=1), "queue2": Queue(unsigned(8), depth=2),
            "queue5": Queue(unsigned(8), depth=5), "lnzd": LnzdWithQueue(width=5, tag=unsigned(6)),
            "bus": ExpandToBus(), "pe": AlonePe(), "requant": Requantise(BLOCK_CONFIG),
            "maxpool": MaxPool(BLOCK_CONFIG), "delta": DeltaUnit(BLOCK_CONFIG),
            "receiver": Checked(Receiver(BLOCK_LINK), "receiver"),
            "transmitter": Checked(Transmitter(), "transmitter"), "rude": Rude()}
        super().__init__({name: Out(block.signature) for name, block in self.blocks.items()})

    def elaborate(self, platform):
        m = Module()
        for name, block in self.blocks.items():
            m.submodules[name] = block
            connect(m, block, flipped(getattr(self, name)))
        return m

