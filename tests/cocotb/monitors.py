"""Protocol monitors in hardware: one on every stream port of every component inside a design."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

from amaranth.hdl import Cat, Fragment, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out, connect, flipped


class Monitored(wiring.Component):
    """A design with its own ports and ``violations``, a bit per stream port inside it.

    ``make`` makes the design. A bit is set, and stays, once the stream took an offer back: ``valid`` fell, or the
    payload changed, before the payload was taken. ``streams`` names the bits. ``reset``, if given, is a function
    of the list of all components that returns the signal under which streams may forget their offers.
    """

    def __init__(self, make: Callable[[], wiring.Component], reset=None) -> None:
        components: list[wiring.Component] = []
        init = wiring.Component.__init__

        def recording(component, *args, **kwargs) -> None:
            init(component, *args, **kwargs)
            components.append(component)

        with patch.object(wiring.Component, "__init__", recording):
            inner = make()
            self._fragment = Fragment.get(inner, None)
        self._inner, self._reset = inner, Signal()
        self._reset_source = reset(components) if reset else 0
        self._ports = [port for component in components for port in _streams(component)]
        self.streams = [name for name, _ in self._ports]
        super().__init__({**inner.signature.members, "violations": Out(len(self._ports))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = self._fragment
        for name, member in self._inner.signature.members.items():
            ours, theirs = getattr(self, name), getattr(self._inner, name)
            if member.is_signature:
                connect(m, theirs, flipped(ours))
            elif member.flow == Out:
                m.d.comb += ours.eq(theirs)
            else:
                m.d.comb += theirs.eq(ours)
        m.d.comb += self._reset.eq(self._reset_source)
        seen = []
        for _, port in self._ports:
            payload = Value.cast(port.payload)
            offered, before, broken = Signal(), Signal(len(payload), reset_less=True), Signal()
            m.d.sync += [offered.eq(port.valid & ~port.ready & ~self._reset), before.eq(payload)]
            with m.If(offered & ~self._reset & (~port.valid | (payload != before))):
                m.d.sync += broken.eq(1)
            seen.append(broken)
        m.d.comb += self.violations.eq(Cat(seen))
        return m


def _streams(component: wiring.Component):
    """(name, port) of the stream ports of a component."""
    for name, member in component.signature.members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            yield f"{type(component).__name__}.{name}", getattr(component, name)


class Rude(wiring.Component):
    """Breaks the rules: ``change`` alters an offer, ``retract`` takes it back. For the test of the monitors."""

    def __init__(self) -> None:
        super().__init__({"change": wiring.In(1), "retract": wiring.In(1), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.o.valid.eq(~self.retract), self.o.payload.eq(self.change)]
        return m
