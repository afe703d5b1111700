// The state of a warp, of its CTA, and what both share with the launch.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "memory.hpp"
#include "program.hpp"
#include "reports.hpp"

namespace ptx {

// How a launch is executed; as the caller lays it out.
struct Options {
    std::uint32_t order;       // of the warps between barriers: 0 forward, 1 reverse, 2 random
    std::uint32_t seed;        // of the random order
    std::uint32_t truncate;    // whether tensor cores cut off what they add
    std::uint32_t most_steps;  // of a warp
};

struct Launch {
    const Program& program;
    GlobalMemory global;
    std::vector<Bits> parameters;
    std::array<std::uint32_t, 3> grid;
    std::uint32_t shared_bytes;
    Options options;
    Reports reports;
    std::uint64_t steps = 0, barriers = 0;
};

struct Cta {
    std::array<std::uint32_t, 3> index;
    std::string name;
    SharedMemory shared;
    std::uint32_t interval = 1;  // between barriers
};

// A copy from global to shared memory that was asked for.
struct Copy {
    std::uint32_t address;
    unsigned bytes;
    std::array<std::uint8_t, 16> value;
};

class Warp {
public:
    enum class State { running, at_barrier, done };

    Warp(Launch& launch, Cta& cta, unsigned index);

    // Execute until a barrier or the end.
    void run();
    State state() const { return state_; }
    int barrier_line() const { return barrier_line_; }
    void pass_barrier() {
        state_ = State::running;
        ++warp_sync;
    }

    // For handlers: operands, registers, control.
    Bits get(const Operand& operand, unsigned lane) const {
        if (operand.kind == Operand::Kind::reg) {
            return registers_[std::size_t(operand.index) * LANES + lane] + operand.value;
        }
        return operand.kind == Operand::Kind::immediate ? operand.value : other(operand, lane);
    }
    Bits get(const Instruction& i, unsigned operand, unsigned lane) const {
        return get(i.operands[operand][0], lane);
    }
    void set(const Operand& operand, unsigned lane, Bits value) {
        if (operand.kind == Operand::Kind::sink) return;
        registers_[std::size_t(operand.index) * LANES + lane] = value;
        written_[std::size_t(operand.index)] |= 1u << lane;
    }
    void need(const Instruction&, std::size_t first_operand, std::uint32_t lanes);
    bool all_lanes(const Instruction&, std::uint32_t lanes);
    void jump(std::uint32_t lanes, int target);
    void stop(std::uint32_t lanes) { live_ &= ~lanes; }
    void arrive(const Instruction&, std::uint32_t lanes);
    Access access(const Instruction& i, unsigned lane) const {
        return {i.line, index, lane, cta.name};
    }
    Clock now() const { return {cta.interval, warp_sync}; }
    template <typename Detail>
    void report(const char* kind, const Instruction& i, Detail detail) {
        launch.reports.add(kind, i.line, [&] {
            return "CTA " + cta.name + " warp " + std::to_string(index) + ": " + detail();
        });
    }

    Launch& launch;
    Cta& cta;
    const unsigned index;
    std::uint32_t warp_sync = 0;
    // Groups of copies that each lane has asked for, the oldest first; the last one is open.
    std::array<std::vector<std::vector<Copy>>, LANES> copies;

private:
    std::vector<Bits> registers_;
    std::vector<std::uint32_t> written_;  // masks of lanes
    std::array<int, LANES> next_{};       // instruction of each lane
    std::uint32_t live_ = ALL_LANES;
    bool together_ = true;  // all live lanes are at the same instruction
    State state_ = State::running;
    int barrier_line_ = 0;

    Bits other(const Operand&, unsigned lane) const;
    std::uint32_t choose(int& at);
    std::uint32_t guarded(const Instruction&, std::uint32_t lanes);
};

}  // namespace ptx
