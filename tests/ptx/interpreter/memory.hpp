// Global memory as views of tensors; the shared memory of a CTA, and what is known of each byte.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "program.hpp"
#include "reports.hpp"

namespace ptx {

// Each view has addresses of its own: which one an address came from is never in doubt.
constexpr unsigned VIEW_BITS = 40;

// A tensor that a kernel is given, as the caller lays it out.
struct View {
    std::uint8_t* host;           // its first element
    std::uint64_t address;        // of that element, in the kernel's eyes
    std::uint64_t elements;       // from the first to the last one, gaps included
    const std::uint8_t* present;  // [elements], 1 for those that belong to the tensor
    std::uint8_t* writes;         // [elements * element_bytes], counts; null: not to be written
    std::uint32_t element_bytes;
    std::uint32_t readable;
};

// Who accesses memory, and from where.
struct Access {
    int line;
    unsigned warp;
    unsigned lane;
    const std::string& cta;
};

class GlobalMemory {
public:
    GlobalMemory(const View* views, std::size_t count) : views_(views, views + count) {}

    bool read(std::uint64_t address, unsigned bytes, std::uint8_t* into, const Access&, Reports&);
    void write(
        std::uint64_t address, unsigned bytes, const std::uint8_t* from, const Access&, Reports&
    );

private:
    std::vector<View> views_;

    const View* view_of(
        std::uint64_t address, unsigned bytes, const char* kind, const Access&, Reports&
    );
};

// One byte: its state, and who touched it between the last two barriers.
struct Byte {
    enum class State : std::uint8_t { untouched, in_flight, written } state = State::untouched;
    std::uint8_t value = 0xff;
    std::uint8_t writer_lane = 0;
    std::uint32_t write_interval = 0, read_interval = 0;  // between barriers, counted from 1
    std::uint32_t writers = 0, readers = 0;               // warps, as masks
    std::uint32_t warp_sync = 0;                          // of the last writer
};

// What a warp knows of time.
struct Clock {
    std::uint32_t interval;   // between barriers
    std::uint32_t warp_sync;  // bar.warp.sync, counted
};

class SharedMemory {
public:
    explicit SharedMemory(std::uint32_t bytes) : bytes_(bytes) {}

    bool read(
        std::uint32_t address, unsigned bytes, std::uint8_t* into, const Access&, Clock, Reports&
    );
    void write(
        std::uint32_t address, unsigned bytes, const std::uint8_t* from, const Access&, Clock,
        Reports&
    );
    // A copy begins: until it lands, its bytes are 0xff and nobody may read them.
    bool begin_copy(std::uint32_t address, unsigned bytes, const Access&, Clock, Reports&);
    void land(
        std::uint32_t address, unsigned bytes, const std::uint8_t* from, const Access&, Clock
    );

private:
    std::vector<Byte> bytes_;

    Byte* at(std::uint32_t address, unsigned bytes, const Access&, Reports&);
    void claim(Byte&, int value, const Access&, Clock, std::uint32_t address, Reports&);
};

std::string hex(std::uint64_t value);

}  // namespace ptx
