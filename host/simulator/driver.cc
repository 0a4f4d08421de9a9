// Runs the ring for many cycles per call. The file is appended to what Yosys writes for the design.
//
// Streams are arrays of beats; a beat is a payload of 32-bit chunks, lowest first.

#include <cstdint>
#include <memory>

namespace {

struct Source { const uint32_t *beats; int64_t count; int64_t chunks; };
struct Sink { uint32_t *beats; int64_t count; int64_t chunks; };

// Sends the beats of a source through a stream, one each cycle in which the stream is ready.
template<class Valid, class Payload> struct Feed {
    Valid &valid; Payload &payload; Source &source; int64_t next = 0;

    bool drive() {
        const bool have = next < source.count;
        valid.template set<bool>(have);
        if (have)
            for (int64_t i = 0; i < int64_t(Payload::chunks); i++)
                payload.data[i] = source.beats[next * source.chunks + i];
        return have;
    }
};

template<class Valid, class Payload> Feed<Valid, Payload> feed(Valid &valid, Payload &payload, Source &source) {
    return {valid, payload, source};
}

}  // namespace

extern "C" {

void *ring_create() { auto *top = new cxxrtl_design::p_top; top->reset(); top->step(); return top; }
void ring_destroy(void *handle) { delete static_cast<cxxrtl_design::p_top *>(handle); }

// Runs until every source is used up, the sink is full and (if asked) the ring is idle, or for max_cycles.
// Sources are load, run, frame, read; their counts become what was not taken. Returns the cycles run.
int64_t ring_run(void *handle, Source *sources, Sink *sink, int until_idle, int64_t max_cycles) {
    auto &top = *static_cast<cxxrtl_design::p_top *>(handle);
    auto load = feed(top.p_load____valid, top.p_load____payload, sources[0]);
    auto run = feed(top.p_run____valid, top.p_run____payload, sources[1]);
    auto frame = feed(top.p_frame____valid, top.p_frame____payload, sources[2]);
    auto read = feed(top.p_read____valid, top.p_read____payload, sources[3]);
    int64_t cycles = 0, received = 0;
    while (cycles < max_cycles) {
        const bool pending = load.drive() | run.drive() | frame.drive() | read.drive();
        const bool complete = received == sink->count;
        top.p_answer____ready.set<bool>(!complete);
        // One evaluation per cycle: the rising edge again, without a falling one in between. The outputs are
        // combinational, so what they show then is what the edge saw.
        top.prev_p_clk.set<bool>(false);
        top.p_clk.set<bool>(true);
        top.step();
        cycles++;
        if (!pending && complete && (!until_idle || top.p_idle.get<bool>()))
            break;
        load.next += top.p_load____valid.get<bool>() && top.p_load____ready.get<bool>();
        run.next += top.p_run____valid.get<bool>() && top.p_run____ready.get<bool>();
        frame.next += top.p_frame____valid.get<bool>() && top.p_frame____ready.get<bool>();
        read.next += top.p_read____valid.get<bool>() && top.p_read____ready.get<bool>();
        if (top.p_answer____valid.get<bool>() && top.p_answer____ready.get<bool>()) {
            for (int64_t i = 0; i < sink->chunks; i++)
                sink->beats[received * sink->chunks + i] = top.p_answer____payload.data[i];
            received++;
        }
    }
    sources[0].count -= load.next;
    sources[1].count -= run.next;
    sources[2].count -= frame.next;
    sources[3].count -= read.next;
    sink->count -= received;
    return cycles;
}

}
