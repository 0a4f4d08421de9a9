"""Seeded faults in the RTL, each with the test that must catch it: ``python -m tests.mutations``.

Every fault is one replacement in one source file of a temporary copy of the sources; then the named test runs there
and has to fail on a comparison. (Before that, it has to pass in the unchanged copy.)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("boards", "host", "hw", "sim", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Fault:
    """``old``, found once in ``file``, becomes ``new``; ``test`` is the node id of a test that fails then."""

    name: str
    file: str
    old: str
    new: str
    test: str


PE, STREAMS = "tests/hw/test_pe_blocks.py::test_", "tests/hw/test_streams.py::test_"
SCATTER, NONLINEAR = "tests/hw/test_scatter.py::test_", "tests/hw/test_nonlinear.py::test_"
MARKS, RING = "tests/hw/test_marks.py::test_", "tests/hw/test_ring.py::test_"
LINK = "tests/link/test_link_rtl.py::test_"
WHOLE = "tests/link/test_accelerator.py::test_frames_through_the_link"

FAULTS = (
    *(Fault(f"result not forwarded at distance {n + 1}", "hw/accumulators.py", f"Mux(matches[{n}], ", "Mux(0, ",
            f"{PE}accumulators_forward_at_every_distance") for n in range(3)),
    Fault("accumulators wrap one bit too early", "hw/accumulators.py", "eq(old + self.product[lane])",
          "eq((old + self.product[lane])[:self.config.accumulator_bits - 1].as_signed())",
          f"{PE}accumulators_forward_at_every_distance"),
    Fault("last word of a CSC column lost", "hw/walker.py", "ending.eq(left == 2)",
          "ending.eq(left == Mux(work.walk.kind != Kind.DENSE8, 3, 2))",
          f"{PE}pe_walks_columns_while_it_is_swept"),
    Fault("CSC row not advanced past a word", "hw/walker.py", "following.eq(here + 1)", "following.eq(here)",
          f"{PE}pe_walks_columns_while_it_is_swept"),
    Fault("a swept slot begins a word all the same", "hw/walker.py",
          "issue.eq(active & ~self.hold)", "issue.eq(active)", f"{PE}pe_walks_columns_while_it_is_swept"),
    Fault("lanes in reverse order", "hw/pe.py", "work.deltas[first + lane]",
          "work.deltas[first + self.config.lanes - 1 - lane]", f"{PE}pe_walks_columns_while_it_is_swept"),
    Fault("the sweep leaves out the second of two channel groups", "hw/order.py", "eq(self.groups == 1)",
          "eq(self.groups <= 2)", f"{NONLINEAR}sweep_order"),
    Fault("a block's pixels are swept in its first group only", "hw/order.py", "pending.eq(block.mask)",
          "pending.eq(rest)", f"{NONLINEAR}sweep_order"),
    Fault("the last column of a row is not swept", "hw/scan.py", "Cat(i <= (step.width - 1)",
          "Cat(i < (step.width - 1)", f"{MARKS}scan_gives_every_pixel_once"),
    Fault("a refresh sweeps the marked pixels only", "hw/scan.py", "whole.eq(self.refresh | ~step.skip)",
          "whole.eq(~step.skip)", f"{MARKS}scan_gives_every_pixel_once"),
    Fault("marks stay when they are taken", "hw/marks.py", "Mux(self.take, self.take_clear, ", "Mux(self.take, 0, ",
          f"{MARKS}marks_are_taken_and_set"),
    Fault("marks added to a word twice in a row replace each other", "hw/marks.py", "for o in (one, two)",
          "for o in (two,)", f"{MARKS}marks_are_taken_and_set"),
    Fault("the last column that is reached has no mark", "hw/marker.py", "(i <= high)", "(i < high)",
          f"{MARKS}marker_sets_what_is_reached"),
    Fault("a span ends with its first word of marks", "hw/marker.py", "crosses.eq(first != last)", "crosses.eq(0)",
          f"{MARKS}marker_sets_what_is_reached"),
    Fault("LNZD stops one element early", "hw/lnzd.py",
          "reversed(range(self.width))", "reversed(range(self.width - 1))", f"{STREAMS}lnzd_gives_every_non_zero_once"),
    Fault("LNZD forgets back-pressure", "hw/lnzd.py", "with m.If(load | self.o.ready):", "with m.If(1):",
          f"{STREAMS}lnzd_gives_every_non_zero_once"),
    Fault("a full queue overwrites", "hw/queue.py", "self.i.ready.eq(~full), write",
          "self.i.ready.eq(1), write", f"{STREAMS}queue_keeps_order"),
    Fault("wrong class table: x taken for y", "hw/expand.py",
          "edge.axis_y + at[\"y\"]", "edge.axis_y + at[\"x\"]",
          f"{SCATTER}every_delta_reaches_the_bus_once_per_edge"),
    Fault("MACs counted one too many", "hw/scatter.py",
          "Mux(bit, area << i, 0)", "Mux(bit, area << i, 1)",
          f"{SCATTER}every_delta_reaches_the_bus_once_per_edge"),
    Fault("the barrier does not wait for the ring", "hw/sequencer.py", "self.finished & cleared", "cleared",
          f"{SCATTER}sequencer_runs_steps_clears_ahead_and_waits"),
    Fault("every clear is done in every frame", "hw/sequencer.py", "eq(entry.always | self.refresh)", "eq(1)",
          f"{SCATTER}sequencer_runs_steps_clears_ahead_and_waits"),
    Fault("halves rounded up", "hw/requant.py", "(guard & (lost | floor[0]))", "guard",
          "tests/hw/test_rounding.py::test_halves_go_to_the_even_neighbour"),
    Fault("floor in place of rounding", "hw/requant.py", "floor + (guard & (lost | floor[0]))", "floor",
          f"{NONLINEAR}requantise_is_the_integer_semantics"),
    Fault("the max-pool counts what lies outside", "hw/maxpool.py", "Mux(flags.outside, LOWEST, code)",
          "code", f"{NONLINEAR}max_pool_takes_the_window_and_leaves_out_the_outside"),
    Fault("a max-pool window forgets what the one to its left shared", "hw/maxpool.py",
          "Mux(flags.left, code, LOWEST)", "LOWEST",
          f"{NONLINEAR}max_pool_takes_the_window_and_leaves_out_the_outside"),
    Fault("a max-pool window that leaves out rows shares less with the one to its right", "hw/maxpool.py",
          "[_larger(columns, above[1]), corner]", "[columns, corner]",
          "tests/hw/test_ring.py::test_max_pool_windows_read_once_what_they_share"),
    Fault("a max-pool window takes rows of another line word", "hw/sweep.py",
          '+ delay(m, one["word"].group, 1), 3, reset_less=True)', "+ 0, 3, reset_less=True)",
          f"{NONLINEAR}sweep_reads_every_operand_word_once_in_order"),
    Fault("the first row of a sweep has another's above it", "hw/scan.py", "Mux(taken_at.y == 0, 0, read.data)",
          "read.data", f"{MARKS}scan_gives_every_pixel_once"),
    Fault("threshold > in place of >=", "hw/delta.py", "(d >= limit)", "(d > limit)",
          f"{NONLINEAR}delta_unit_is_the_threshold_rule"),
    Fault("hold updates the snapshot of what it did not send", "hw/delta.py", "Mux(sent | step.truncate, ", "Mux(1, ",
          f"{NONLINEAR}delta_unit_is_the_threshold_rule"),
    Fault("a refresh keeps the snapshots", "hw/delta.py", "keep.eq(step.keep & ~self.refresh)", "keep.eq(step.keep)",
          f"{NONLINEAR}delta_unit_is_the_threshold_rule"),
    Fault("a duplicate packet is applied twice", "hw/link/link.py", "with m.Elif(repeated & ~reads):",
          "with m.Elif(repeated & ~reads & (executor.status == Status.BUSY)):",
          f"{LINK}repeated_packets_are_executed_once"),
    Fault("a payload's CRC is not looked at", "hw/link/receiver.py",
          'm.next = "SHOW"\n                    with m.If(~check.match):',
          'm.next = "SHOW"\n                    with m.If(0):', f"{LINK}every_single_bit_error"),
    Fault("a part of a packet ends a byte early", "hw/link/countdown.py", "left == 1", "left == 2",
          f"{LINK}valid_packets"),
    Fault("later rows are swept while deltas wait that reach them", "hw/sweep.py", "(early | ~self.pending)", "1",
          f"{NONLINEAR}sweep_waits_with_rows_that_are_not_early"),
    Fault("a step starts before all deltas that wait are late", "hw/ring.py",
          "(before | old | Cat(pe.behind for pe in pes).any())", "(before | old)",
          "tests/hw/test_barrier.py::test_a_step_waits_for_the_queues_of_the_last"),
    Fault("the LNZD hears of a full queue too late", "hw/ring.py", "ready_next.eq(~blocked_next)",
          "ready_next.eq(~blocked)", "tests/hw/test_barrier.py::test_a_step_waits_for_the_queues_of_the_last"),
    Fault("marks are looked through before they are all set", "hw/ring.py", "~(marker.more | marker.busy)",
          "~marker.more", f"{RING}ring_leaves_out_what_nothing_has_reached"),
    Fault("groups of PEs swept in reverse order", "hw/ring.py", "for g in range(config.groups))",
          "for g in reversed(range(config.groups)))", WHOLE),
    Fault("the mirror's address lags behind", "hw/link/frames.py", "block + token.offset", "block", WHOLE),
)
FAST = ("result not forwarded at distance 2", "LNZD stops one element early", "threshold > in place of >=")
"""Those that the normal test run tries."""


class Copy:
    """A copy of the sources in which tests run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)

    def pytest(self, *tests: str) -> subprocess.CompletedProcess:
        """Run tests in the copy; no bytecode is kept, which could outlive a replacement."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=short", *tests]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"})

    def catches(self, fault: Fault) -> str:
        """Why the fault's test failed with it; RuntimeError when it passed, or did not get to compare anything."""
        path = self.folder / fault.file
        text = path.read_text()
        try:
            path.write_text(planted(fault, text))
            done = self.pytest(fault.test)
        finally:
            path.write_text(text)
        found = re.findall(r"^E +((?:AssertionError|assert |Failed|.*Error).*)", done.stdout, re.MULTILINE)
        if done.returncode != 1 or not found or not found[0].startswith(("assert", "Assertion", "Failed")):
            raise RuntimeError(f"{fault.name}: {fault.test} does not catch it (exit {done.returncode})\n"
                               f"{done.stdout[-1500:]}{done.stderr[-500:]}")
        return found[0][:100]


def planted(fault: Fault, text: str) -> str:
    """The source with the fault in it. ValueError when the source has changed and the fault has no place any more."""
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: {fault.file} has {text.count(fault.old)} times {fault.old!r}, not once; "
                         "write this fault anew in tests/mutations.py")
    return text.replace(fault.old, fault.new)


def check(faults: Iterable[Fault], say=print) -> list[str]:
    """Try faults; returns what went wrong, and says a row of a table for each."""
    problems, sound = [], {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        say("| fault | in | caught by | seconds |\n|---|---|---|---|")
        for fault in faults:
            if fault.test not in sound:
                sound[fault.test] = copy.pytest(fault.test)
            begin = time.monotonic()
            try:
                if sound[fault.test].returncode:
                    raise RuntimeError(f"{fault.test} fails without any fault:\n{sound[fault.test].stdout[-1500:]}")
                copy.catches(fault)
                caught = f"`{fault.test.split('::')[1]}`"
            except (RuntimeError, ValueError) as error:
                problems.append(str(error))
                caught = "**nothing**"
            say(f"| {fault.name} | {fault.file} | {caught} | {time.monotonic() - begin:.0f} |")
    return problems


def main() -> int:
    chosen = [f for f in FAULTS if not sys.argv[1:] or any(word in f.name for word in sys.argv[1:])]
    problems = check(chosen, lambda row: print(row, flush=True))
    print(*problems, sep="\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
