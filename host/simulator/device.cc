// Runs the accelerator behind its two streams of bytes, many cycles per call. With TRACE it can write waveforms.

#include "Simulated.h"
#include "verilated.h"

#include <cstdint>
#ifdef TRACE
#include "verilated_vcd_c.h"
#include <cstdio>
#endif

namespace {

#ifdef TRACE
// A file of waveforms that remembers whether all was written, where Verilator's own ends the program.
class WaveFile : public VerilatedVcdFile {
    FILE *file = nullptr;

public:
    bool good = true;

    bool open(const std::string &path) override {
        file = std::fopen(path.c_str(), "w");
        return good = file;
    }
    ssize_t write(const char *data, ssize_t size) override {
        good &= std::fwrite(data, 1, size, file) == size_t(size);
        return size;
    }
    void close() override {
        if (file)
            good &= std::fclose(file) == 0;
        file = nullptr;
    }
};
#endif

struct Device {
    VerilatedContext context;
    Simulated top{&context};
    int64_t cycles = 0;
#ifdef TRACE
    WaveFile file;
    VerilatedVcdC waves{&file};

    Device() {
        context.traceEverOn(true);
        top.trace(&waves, 99);
    }
    ~Device() { waves.close(); }
#endif

    // The two halves of a clock cycle. After the first, the outputs (which are combinational) show what the rising
    // edge sees.
    void half(int clock) {
        top.clk = clock;
        top.eval();
#ifdef TRACE
        if (waves.isOpen())
            waves.dump(uint64_t(2 * cycles + clock));
#endif
        cycles += clock;
    }
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void *device_create() { return new Device; }
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
        top.i___05Fvalid = sent < count;
        if (sent < count)
            top.i___05Fpayload = data[sent];
        top.o___05Fready = 1;
        device.half(0);
        if (top.i___05Fvalid && top.i___05Fready) {
            sent++;
            silent = 0;
        }
        if (top.o___05Fvalid) {
            answer[received++] = top.o___05Fpayload;
            silent = 0;
        }
        device.half(1);
    }
    *taken = sent;
    return received;
}

#ifdef TRACE
// Writes waveforms of every signal into a file from now on; a null path ends it. Returns 0 when a file cannot be
// written, or was not to its end.
int device_trace(void *handle, const char *path) {
    auto &device = *static_cast<Device *>(handle);
    device.waves.close();
    const bool good = device.file.good;
    device.file.good = true;
    if (!path)
        return good;
    device.waves.open(path);
    return good && device.waves.isOpen();
}
#endif

}
#pragma GCC visibility pop
