"""The accelerators that have a name: presets, and the boards' own."""

from __future__ import annotations

from dataclasses import dataclass

from boards.board import MODULES, Board, get_board, variants
from host.compiler import Program, compile_graph
from host.compiler.stored import SECTION, from_section
from host.errors import UserError
from host.link.driver import Region
from host.link.program import device_program, region
from host.rrm_file import Model
from hw.config import PRESETS, AcceleratorConfig
from hw.layouts import Space
from hw.link.packets import LinkConfig
from hw.link.words import read_bytes
from sim.graph import Graph

DEFAULT = "sim64"
"""The preset that a network runs on when nothing else is named."""


@dataclass(frozen=True)
class Named:
    """An accelerator by name. ``link`` is None for presets: their memories and link are sized to the network.
    ``board`` is the one that it is for."""

    name: str
    config: AcceleratorConfig
    link: LinkConfig | None
    board: Board | None = None

    @classmethod
    def of(cls, board: Board) -> Named:
        """A board's own accelerator."""
        return cls(board.label, board.config, board.link, board)

    def compile(self, graph: Graph) -> Program:
        """Raises UserError when the network does not fit, naming the memories."""
        program = compile_graph(graph, self.config, fit=self.link is None)
        if self.link is not None and (short := _link_shortage(program, self.link)):
            raise UserError(f"network {graph.name} does not fit the link of {self.name}: {short}")
        return program


def boards() -> list[Named]:
    """Every variant of every board."""
    return [Named.of(b) for module in MODULES for b in variants(module)]


def board_of(config_hash: str) -> Named | None:
    """The board that is built with the config of this hash."""
    return next((b for b in boards() if b.config.hash == config_hash), None)


def named(name: str, variant: str | None = None) -> Named:
    """A preset or board by name; a board is "arty_a7_100", or "arty_a7" and its variant (None: the first one).
    Raises UserError listing them."""
    if variant is not None or name in MODULES:
        return Named.of(get_board(name, variant))
    if name in PRESETS:
        return Named(name, PRESETS[name], None)
    known = boards()
    for board in known:
        if board.name == name:
            return board
    raise UserError(f"there is no accelerator '{name}'; the boards are {', '.join(b.name for b in known)}, the "
                    f"presets of the simulator {', '.join(PRESETS)}")


def boards_for(graph: Graph) -> list[tuple[Named, Program | None, str]]:
    """Every board, with the network's program, or with None and why it cannot hold the network."""
    tried = []
    for board in boards():
        try:
            tried.append((board, board.compile(graph), ""))
        except UserError as e:
            tried.append((board, None, str(e).partition(": ")[2]))
    return tried


def program_for(model: Model, accelerator: Named | None = None) -> Program:
    """The program of an accelerator; without one, that of the ``.rrm`` file, else of ``DEFAULT``.

    Raises UserError when the network does not fit, or is compiled for another board.
    """
    graph = model.network.graph
    if SECTION not in model.sections:
        return (accelerator or named(DEFAULT)).compile(graph)
    program = from_section(model.sections[SECTION], graph)
    if accelerator is not None:
        wanted = accelerator.compile(graph).config.hash
        if wanted != program.config.hash:
            raise UserError(f"network {graph.name} is compiled for config {program.config.hash}, but "
                            f"{accelerator.name} has config {wanted}; compile it with: rrm-fpga compile --config "
                            f"{accelerator.name}")
    return program


def link_for(program: Program) -> LinkConfig:
    """A link with room for the network's input and outputs."""
    channels, mirror = link_needs(program)
    smallest = LinkConfig()
    return LinkConfig(input_channels=max(smallest.input_channels, channels),
                      mirror_bytes=max(smallest.mirror_bytes, 1 << (mirror - 1).bit_length()))


def handed_out(graph: Graph) -> tuple[str, ...]:
    """The tensors and projections of which the host reads the values each frame (the input excepted, which it has)."""
    return tuple(dict.fromkeys(r.source for o in graph.outputs for r in o.reads if r.source != graph.input))


def frame_reads(program: Program) -> tuple[Region, ...]:
    """What the host reads each frame: ``handed_out``, then the counters of all steps."""
    counters = Region(Space.COUNTERS, 0, len(program.steps), changes=False)
    return (*(region(program, name) for name in handed_out(program.graph)), counters)


def link_needs(program: Program) -> tuple[int, int]:
    """(input channels, bytes of the mirror) so that frame and outputs travel as changes."""
    c, h, w = device_program(program).input.shape
    outputs = sum(r.units * r.words * read_bytes(program.layouts, r.space) for r in frame_reads(program) if r.changes)
    return c, c * h * w + outputs


def _link_shortage(program: Program, link: LinkConfig) -> str:
    """What the driver would refuse. Outputs may do without the mirror."""
    c, h, w = program.graph.tensors[program.graph.input].shape
    needs = {"input_channels": c, "mirror_bytes": c * h * w}
    return "; ".join(f"{name} needs {n}, has {getattr(link, name)}" for name, n in needs.items()
                     if n > getattr(link, name))
