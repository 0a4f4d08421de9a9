"""docs/link.md, from the definitions that RTL and driver use.

Write it anew with ``python -m hw.link.reference > docs/link.md``.
"""

from __future__ import annotations

from amaranth.lib.data import StructLayout

from hw.layouts import Space
from hw.link.packets import (
    ANSWER,
    FIELDS,
    FRAME,
    HEADER,
    IDENTITY,
    INPUT,
    MAGIC,
    MEMORY,
    PACKET_BYTES,
    PROTOCOL,
    REQUEST,
    RUN,
    Command,
    LinkConfig,
    Status,
)
from hw.link.words import READABLE

COMMANDS = {
    Command.IDENTIFY: "Who are you? Needs no session, uses up no sequence number, changes nothing.",
    Command.RESET: "Begin the session and the sequence that the header names. The ring forgets what it is doing; "
                   "memories, mirror and input are to be loaded anew.",
    Command.LOAD: "Write words. Data: the words, each with just the bytes that its bits need.",
    Command.INPUT: "The shape of the input. Data: per channel the byte that stands for code 0.",
    Command.RUN: "Run `count` steps from step `first`. Data: elements of the frame, as in FRAME.",
    Command.FRAME: "More elements of the frame. Data: the elements.",
    Command.READ: "Read words. The answer carries them like LOAD does.",
    Command.COPY: "READ, and the mirror keeps what was read.",
    Command.CHANGES: "COPY, but the answer carries what differs from the mirror, when that is less.",
}

STATUSES = {
    Status.OK: "Done.",
    Status.BUSY: "The run goes on. To wait on, send the packet again, without its payload.",
    Status.DAMAGED: "A CRC was wrong. Nothing was done; send the packet again.",
    Status.TRUNCATED: "The packet did not go on. Nothing was done; send it again.",
    Status.TOO_LONG: "The payload is longer than the packet buffer. Nothing was done.",
    Status.UNKNOWN: "There is no such command. Nothing was done.",
    Status.MALFORMED: "Lengths, counts or space make no sense. Nothing was done.",
    Status.SESSION: "The device has another session, or none: it was reset. RESET and load everything.",
    Status.SEQUENCE: "This is neither the next packet nor the last one again. Nothing was done.",
    Status.RUNNING: "Not while a run goes on. Nothing was done.",
    Status.STALLED: "Elements came that no step takes, or did not come: the ring was reset and the session ended.",
}

FIELD_NOTES = {
    "code": "command, or status of an answer", "sequence": "of the request; the answer repeats it",
    "session": "of the host; an answer has the device's", "length": "bytes of payload, 0 for none",
    "magic": f"0x{MAGIC:08x}", "protocol": f"version of this protocol, {PROTOCOL}",
    "input_channels": "most channels of an input", "config_hash": "`AcceleratorConfig.hash`",
    "buffer_bytes": "longest payload of a request", "mirror_bytes": "size of the mirror",
    "program": "`hw.load.images_hash` of the program that its memories hold since power-up, 0 when they hold another",
    "space": "`hw.layouts.Space`", "unit": "the first unit: a PE, to read PROJECTIONS a sweep group",
    "units": "how many units",
    "words": "words in each unit", "address": "of the first word in each unit",
    "mirror": "where the mirror of these words begins (COPY, CHANGES)", "width": "of the input",
    "channels": "of the input", "first": "number of the first step", "count": "number of steps",
    "refresh": "bit 0: clear P and snapshots", "frame": "the fields of FRAME",
    "begin": "the first element is the frame's first (RUN implies it)", "end": "the last element is the frame's last",
    "wait": "answer when the run is done", "values": "the ring gets values, not deltas: refresh, direct projections",
    "changes": "elements are packed as changes", "quiet": "only the mirror gets the elements",
    "reserved": "0", "threshold": "deltas smaller than this become 0", "elements": "how many follow",
}

INTRODUCTION = """\
# The link

How a host talks to the accelerator, over any stream of bytes: a serial line, a socket, the compiled simulator. RTL:
`hw/link/`; driver: `host/link/`. This page is written by `python -m hw.link.reference`; a test fails when it is
stale.

```
 host                                             device
 Driver: program, frames, outputs                 Receiver: framing, CRC, packet buffer
 Connection: packets, repetition  <-- bytes -->   admission: session, sequence: once or not at all
 Transport: serial, socket, simulator             Executor: writes, runs, reads; mirror
```

The host sends a request and waits for its answer before the next one. Everything is little-endian.
"""

RULES = """\
## Rules

**Integrity.** Header and payload each have a CRC-32 (Ethernet's). A CRC-16 on the header would save two bytes and
cost a second circuit. The ring sees nothing of a packet before both have passed.

**Once.** A session is a number other than 0 that the host makes up; after power-up the device has session 0 and
accepts nothing but IDENTIFY and RESET. So a device that was reset is noticed with the next packet, whatever it is.
Within a session a packet is executed if its sequence number is one more (modulo 256) than that of the last one
executed. The last one again is only answered again:

| command | when it is repeated |
|---|---|
| LOAD, INPUT, RUN, FRAME | the same status, without doing anything; after BUSY it waits on |
| READ, COPY, CHANGES | read again (nothing can have changed); CHANGES is answered in full: the mirror has moved on |
| RESET | OK, without a reset |

Refused packets (UNKNOWN, MALFORMED, RUNNING) use up their number; packets with DAMAGED, TRUNCATED, TOO_LONG, SESSION
or SEQUENCE do not. The answer to one whose header cannot be trusted carries the last number executed.

**Damage.** Bytes that do not begin with the sync word are skipped without an answer. After a CRC error or an
impossible length the device throws everything away until the line has been silent for `timeout` cycles, then answers;
the host may send again at once. A packet that stops for as long is TRUNCATED. A packet whose sync word was hit is
never seen: the host repeats it when no answer comes.

**Waiting.** A run with `wait` is answered when it is done, or with BUSY after `timeout` cycles. Then a packet with
the same number and no payload waits on. Elements that the
ring does not take for `timeout` cycles are a STALL.

## Frames and outputs

Only changes travel. The *mirror* is a memory of bytes that host and device both know: the last frame sent, from
address 0, and behind it the last outputs read, wherever the host puts them.

An element of the frame is one byte, code + zero point of its channel, in the order y, x, channel. Elements go in
full, or as changes: blocks of 64 elements (the last may be smaller), each a mask of its groups of 8, and then, for
each group whose bit is set, a mask of its elements and those whose bit is set, lowest first; bits beyond the last
element are 0. The other elements are as in the mirror. The device subtracts the mirror (or, for `values`, the zero
point), which gives the 9-bit delta, and gives the ring words of S channels that are not all 0. A packet continues
where the last one ended. The input's threshold rule is the host's: in mode hold it sends no small changes; in mode
truncate it sends all, the mirror moves, and `threshold` makes the small ones 0.

So a frame of n elements of which k changed, in m groups of 8, takes min(n, ceil(n / 64) + m + k) bytes: never more
than the raw frame, and from 64 elements on never more than n / 8 + 1.25 k (worst where every group has one change).
The device decodes a byte per cycle, and one element per cycle where more elements than bytes matter (`values`). The
packets have {packet} bytes + 4 for the payload's CRC + {run} (RUN) or {frame} (FRAME) bytes of fields.

COPY and CHANGES send a code of a snapshot as its low 8 bits; its range tells the host the ninth.

The answer to CHANGES is the same the other way round, over the bytes of the words: per eight bytes those that
changed, then their mask, so it is decoded from its end and the device stores nothing. An answer as long as the words
themselves is in full. It never takes more than the words: n bytes of which k changed take min(n, k + ceil(n / 8)).
"""


def table(layout: StructLayout) -> str:
    """The fields of a layout."""
    rows = ["| field | bits | at bit | |", "|---|---|---|---|"]
    for name, field in layout:
        note = FIELD_NOTES.get(name.rstrip("2"), "")
        rows.append(f"| {name} | {field.width} | {field.offset} | {note} |")
    return "\n".join(rows)


def page() -> str:
    """The whole page."""
    def sync(word: int) -> str:
        return " ".join(f"{byte:02x}" for byte in word.to_bytes(2, "little"))

    names = {id(HEADER): "HEADER", id(MEMORY): "MEMORY", id(INPUT): "INPUT", id(RUN): "RUN", id(FRAME): "FRAME"}
    commands = ["| code | command | fields | |", "|---|---|---|---|"]
    for command in Command:
        layout = FIELDS[command]
        commands.append(f"| {command.value} | {command.name} | {names[id(layout)] if layout is not None else ''} | "
                        f"{COMMANDS[command]} |")
    statuses = ["| code | status | |", "|---|---|---|",
                *(f"| {status.value} | {status.name} | {STATUSES[status]} |" for status in Status)]
    default = LinkConfig()
    sections = [
        INTRODUCTION,
        f"## Packets\n\n`sync, HEADER, CRC[, payload, CRC]`. Sync is `{sync(REQUEST)}` in requests, `{sync(ANSWER)}` "
        f"in answers; a packet without payload has {PACKET_BYTES} bytes.\n\nHEADER:\n\n{table(HEADER)}\n",
        "## Requests\n\nA payload begins with the fields; data follow.\n\n" + "\n".join(commands) + "\n",
        *(f"{name}:\n\n{table(layout)}\n" for name, layout in
          (("MEMORY", MEMORY), ("INPUT", INPUT), ("FRAME", FRAME), ("RUN", RUN))),
        f"LOAD takes every space but {', '.join(s.name for s in (Space.PROJECTIONS, Space.COUNTERS))}; READ, COPY and "
        f"CHANGES take {', '.join(s.name for s in READABLE)}.\n",
        "## Answers\n\n" + "\n".join(statuses) + f"\n\nThe payload of an answer to IDENTIFY:\n\n{table(IDENTITY)}\n",
        RULES.format(packet=PACKET_BYTES, run=RUN.size // 8, frame=FRAME.size // 8),
        "## Sizes\n\n`LinkConfig`; a board's `timeout` is to be longer than the pauses of its line within a packet "
        "(USB bridges: 40 ms).\n\n| | default |\n|---|---|\n"
        + "\n".join(f"| {name} | {value} |" for name, value in default.as_dict().items()) + "\n",
    ]
    return "\n".join(sections)


if __name__ == "__main__":
    print(page(), end="")
