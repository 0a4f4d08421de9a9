// A simulated board on a pseudo-terminal: drives a serial design only through its line, in real bit times.
// line FD SEED FLIP DROP RESET: FD the terminal's other end; FLIP and DROP the chances, per million, that a byte in
// either direction has a wrong bit or is lost; RESET: the reset button is pressed when so many bytes have reached the
// device (0: never). CYCLES and BITS: clock cycles in BITS bits.
#include "Vtop.h"
#include "verilated.h"
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <poll.h>
#include <random>
#include <unistd.h>

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    const int fd = std::atoi(argv[1]);
    std::mt19937 random(std::atoi(argv[2]));
    const unsigned flip = std::atoi(argv[3]), drop = std::atoi(argv[4]);
    const uint64_t reset = std::strtoull(argv[5], nullptr, 10);
    uint64_t arrived = 0, pressed = 0;
    const auto pass = [&](uint8_t& byte) {  // whether it arrives, and as what
        if (random() % 1000000 < flip) byte ^= 1 << random() % 8;
        return random() % 1000000 >= drop;
    };
    VerilatedContext context;
    Vtop top{&context};
    std::deque<uint8_t> bytes;
    unsigned sending = 0, sent = 0, receiving = 0, got = 0;
    int64_t send_left = 0, receive_left = 0;
    uint64_t quiet = 0;
    top.rx = 1;
    for (uint64_t cycle = 1;; cycle++) {
        if (cycle % 256 == 0 && bytes.empty()) {
            // when nothing happens for long, wait instead of simulating at full speed
            pollfd poller{fd, POLLIN, 0};
            if (poll(&poller, 1, quiet > 2000000 ? 2 : 0) > 0) {
                if (poller.revents & (POLLERR | POLLNVAL)) return 0;
                uint8_t buffer[4096];
                const ssize_t n = (poller.revents & POLLIN) ? read(fd, buffer, sizeof buffer) : 0;
                for (ssize_t i = 0; i < n; i++)
                    if (pass(buffer[i])) bytes.push_back(buffer[i]);
            }
        }
        quiet = top.busy || sending || receiving ? 0 : quiet + 1;
        // host to device: start bit, eight data bits, stop bit
        if (!sending && !bytes.empty()) {
            sent = bytes.front() << 1 | 1 << 9;
            bytes.pop_front();
            sending = 10;
            send_left += CYCLES;
            top.rx = sent & 1;
        } else if (sending) {
            send_left -= BITS;
            if (send_left <= 0) {
                sent >>= 1;
                sending--;
                top.rx = sending ? sent & 1 : 1;
                send_left = sending ? send_left + CYCLES : 0;
                if (!sending && ++arrived == reset) pressed = cycle;
            }
        }
        top.rst = pressed && cycle < pressed + 20;
        top.clk = 1;
        top.eval();
        top.clk = 0;
        top.eval();
        // device to host
        if (!receiving && !top.tx) {
            receiving = 10;
            receive_left = CYCLES / 2;
        } else if (receiving) {
            receive_left -= BITS;
            if (receive_left <= 0) {
                receive_left += CYCLES;
                got = got >> 1 | (top.tx ? 512 : 0);
                if (--receiving == 0 && (got & 512)) {
                    uint8_t byte = got >> 1;
                    if (pass(byte) && write(fd, &byte, 1) != 1) return 0;
                }
            }
        }
    }
}
