"""The compiled simulator: the ring as a shared library, made with CXXRTL."""

from host.simulator.ring import RingSimulator

__all__ = ["RingSimulator"]
