"""The compiler back end: a quantised graph and a config -> program and memory images of the ring."""

from host.compiler.program import Program, compile_graph

__all__ = ["Program", "compile_graph"]
