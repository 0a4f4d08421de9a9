// Runs the ring for many cycles per call, at the ring's own streams.
//
// Streams are arrays of beats; a beat is a payload of 32-bit chunks, lowest first.

#include "Simulated.h"
#include "verilated.h"

#include <cstdint>
#include <cstring>

namespace {

struct Ring {
    VerilatedContext context;
    Simulated top{&context};
};

struct Source { const uint32_t *beats; int64_t count; int64_t chunks; };
struct Sink { uint32_t *beats; int64_t count; int64_t chunks; };

// Sends the beats of a source through a stream, one each cycle in which the stream is ready.
template<class Payload> struct Feed {
    CData &valid, &ready; Payload &payload; Source &source; int64_t next = 0;

    bool drive() {
        valid = next < source.count;
        if (valid)
            std::memcpy(static_cast<void *>(&payload), source.beats + next * source.chunks,
                        source.chunks * sizeof(uint32_t));
        return valid;
    }
    bool taken() const { return valid && ready; }
};

template<class Payload> Feed<Payload> feed(CData &valid, CData &ready, Payload &payload, Source &source) {
    return {valid, ready, payload, source};
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void *ring_create() { return new Ring; }
void ring_destroy(void *handle) { delete static_cast<Ring *>(handle); }

// Runs until every source is used up, the sink is full and (if asked) the ring is idle, or for max_cycles.
// Sources are load, run, frame, read; their counts become what was not taken. Returns the cycles run.
int64_t ring_run(void *handle, Source *sources, Sink *sink, int until_idle, int64_t max_cycles) {
    auto &top = static_cast<Ring *>(handle)->top;
    auto load = feed(top.load___05Fvalid, top.load___05Fready, top.load___05Fpayload, sources[0]);
    auto run = feed(top.run___05Fvalid, top.run___05Fready, top.run___05Fpayload, sources[1]);
    auto frame = feed(top.frame___05Fvalid, top.frame___05Fready, top.frame___05Fpayload, sources[2]);
    auto read = feed(top.read___05Fvalid, top.read___05Fready, top.read___05Fpayload, sources[3]);
    int64_t cycles = 0, received = 0;
    for (bool done = false; !done && cycles < max_cycles; cycles++) {
        const bool pending = load.drive() | run.drive() | frame.drive() | read.drive();
        const bool complete = received == sink->count;
        top.answer___05Fready = !complete;
        top.clk = 0;
        top.eval();             // the outputs are combinational: now they show what the rising edge sees
        done = !pending && complete && (!until_idle || top.idle);
        load.next += load.taken();
        run.next += run.taken();
        frame.next += frame.taken();
        read.next += read.taken();
        if (top.answer___05Fvalid && top.answer___05Fready) {
            std::memcpy(sink->beats + received * sink->chunks, static_cast<void *>(&top.answer___05Fpayload),
                        sink->chunks * sizeof(uint32_t));
            received++;
        }
        top.clk = 1;
        top.eval();
    }
    sources[0].count -= load.next;
    sources[1].count -= run.next;
    sources[2].count -= frame.next;
    sources[3].count -= read.next;
    sink->count -= received;
    return cycles;
}

}
#pragma GCC visibility pop
