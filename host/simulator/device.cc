
// Runs the accelerator behind its two streams of bytes, many cycles per call. The file is appended to what
// Yosys writes for the design. With TRACE it can write waveforms.

#include <cstdint>
#include <cstdio>
#ifdef TRACE
#include <cxxrtl/cxxrtl_vcd.h>
#endif

namespace {

struct Device {
    cxxrtl_design::p_top top;
    int64_t cycles = 0;
#ifdef TRACE
    cxxrtl::debug_items items;
    std::unique_ptr<cxxrtl::vcd_writer> waves;
    FILE *file = nullptr;
#endif

    // One clock cycle; afterwards the outputs show what the rising edge saw. They are combinational, so one
    // evaluation does: the rising edge again, without a falling one in between. Waveforms show both halves.
    void cycle() {
#ifdef TRACE
        if (waves) {
            top.p_clk.set<bool>(false);
            top.step();
            sample(0);
        }
#endif
        top.prev_p_clk.set<bool>(false);
        top.p_clk.set<bool>(true);
        top.step();
#ifdef TRACE
        if (waves)
            sample(1);
#endif
        cycles++;
    }

#ifdef TRACE
    void sample(int clock) {
        waves->sample(2 * cycles + clock);
        fwrite(waves->buffer.data(), 1, waves->buffer.size(), file);
        waves->buffer.clear();
    }
#endif
};

}  // namespace

extern "C" {

void *device_create() { auto *device = new Device; device->top.reset(); device->top.step(); return device; }
void device_destroy(void *handle) { delete static_cast<Device *>(handle); }

// Clock cycles since the device was made.
int64_t device_cycles(void *handle) { return static_cast<Device *>(handle)->cycles; }

// Sends `count` bytes and runs until `wanted` bytes have come back, or until no byte has moved for `patience`
// cycles. Returns how many bytes came; `taken` becomes how many were sent.
int64_t device_run(void *handle, const uint8_t *data, int64_t count, int64_t *taken, uint8_t *answer,
                   int64_t wanted, int64_t patience) {
    auto &device = *static_cast<Device *>(handle);
    auto &top = device.top;
    int64_t sent = 0, received = 0;
    for (int64_t silent = 0; received < wanted && silent < patience; silent++) {
        top.p_i____valid.set<bool>(sent < count);
        if (sent < count)
            top.p_i____payload.set<uint8_t>(data[sent]);
        top.p_o____ready.set<bool>(true);
        device.cycle();
        if (sent < count && top.p_i____ready.get<bool>()) {
            sent++;
            silent = 0;
        }
        if (top.p_o____valid.get<bool>()) {
            answer[received++] = top.p_o____payload.get<uint8_t>();
            silent = 0;
        }
    }
    *taken = sent;
    return received;
}

#ifdef TRACE
// Writes waveforms of every signal into a file from now on; a null path ends it. Returns 0 when the file
// cannot be written.
int device_trace(void *handle, const char *path) {
    auto &device = *static_cast<Device *>(handle);
    int good = 1;
    if (device.file)
        good = fclose(device.file) == 0;
    device.waves.reset();
    device.file = nullptr;
    if (!path)
        return good;
    device.file = fopen(path, "w");
    if (!device.file)
        return 0;
    if (device.items.table.empty())
        device.top.debug_info(&device.items, nullptr, "");
    device.waves = std::make_unique<cxxrtl::vcd_writer>();
    device.waves->timescale(1, "ns");
    device.waves->add_without_memories(device.items);
    return 1;
}
#endif

}
