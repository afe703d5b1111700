// Control flow of a warp: the lanes that are furthest behind go first, so that branches meet again.
#include "warp.hpp"

#include <algorithm>

namespace ptx {

Warp::Warp(Launch& launch, Cta& cta, unsigned index)
    : launch(launch),
      cta(cta),
      index(index),
      registers_(launch.program.registers.size() * LANES),
      written_(launch.program.registers.size()) {
    for (auto& groups : copies) groups.emplace_back();
}

void Warp::run() {
    const auto& instructions = launch.program.instructions;
    for (std::uint64_t steps = 0; state_ == State::running; ++steps, ++launch.steps) {
        int at = 0;
        const auto lanes = choose(at);
        if (lanes == 0 || at >= static_cast<int>(instructions.size())) {
            state_ = State::done;
            return;
        }
        const auto& instruction = instructions[std::size_t(at)];
        if (steps >= launch.options.most_steps) {
            report("no end in sight", instruction, [&] {
                return std::to_string(steps) + " steps";
            });
            state_ = State::done;
            return;
        }
        jump(lanes, at + 1);
        const auto active = guarded(instruction, lanes);
        if (active != 0) instruction.handler(*this, instruction, active);
        if (!together_) {
            int other = 0;
            together_ = choose(other) == live_;
        }
    }
}

// Return the lanes that go next, and where they are.
std::uint32_t Warp::choose(int& at) {
    if (live_ == 0) return 0;
    if (together_) {
        at = next_[std::size_t(__builtin_ctz(live_))];
        return live_;
    }
    std::uint32_t lanes = 0;
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(live_ >> lane & 1)) continue;
        if (lanes == 0 || next_[lane] < at) lanes = 0, at = next_[lane];
        if (next_[lane] == at) lanes |= 1u << lane;
    }
    return lanes;
}

std::uint32_t Warp::guarded(const Instruction& instruction, std::uint32_t lanes) {
    if (instruction.guard < 0) return lanes;
    if (lanes & ~written_[std::size_t(instruction.guard)]) {
        report("read of an uninitialised register", instruction, [] { return "its guard"; });
    }
    std::uint32_t active = 0;
    for (unsigned lane = 0; lane < LANES; ++lane) {
        const bool value = registers_[std::size_t(instruction.guard) * LANES + lane] & 1;
        if (value != instruction.guard_negated) active |= 1u << lane;
    }
    return active & lanes;
}

// The value of an operand that is neither a register nor a number.
Bits Warp::other(const Operand& operand, unsigned lane) const {
    if (operand.kind == Operand::Kind::sink) return 0;
    const auto at = static_cast<std::size_t>(operand.index);
    if (operand.kind == Operand::Kind::parameter) return launch.parameters[at];
    switch (operand.special) {
        case Special::tid_x:
            return index * LANES + lane;
        case Special::laneid:
            return lane;
        case Special::ctaid_x:
            return cta.index[0];
        case Special::ctaid_y:
            return cta.index[1];
        case Special::ctaid_z:
            return cta.index[2];
        case Special::nctaid_x:
            return launch.grid[0];
        case Special::nctaid_y:
            return launch.grid[1];
        case Special::nctaid_z:
            return launch.grid[2];
    }
    return 0;
}

// Report registers that the lanes read before anything was written into them.
void Warp::need(const Instruction& instruction, std::size_t first_operand, std::uint32_t lanes) {
    for (auto i = first_operand; i < instruction.operands.size(); ++i) {
        for (const auto& operand : instruction.operands[i]) {
            if (operand.kind != Operand::Kind::reg) continue;
            if ((lanes & ~written_[std::size_t(operand.index)]) == 0) continue;
            report("read of an uninitialised register", instruction, [&] {
                return "operand " + std::to_string(i) + " of " + instruction.opcode;
            });
        }
    }
}

bool Warp::all_lanes(const Instruction& instruction, std::uint32_t lanes) {
    if (lanes == ALL_LANES) return true;
    report("instruction of a whole warp in a divergent branch", instruction, [&] {
        return instruction.opcode + " with lanes " + hex(lanes);
    });
    return false;
}

void Warp::jump(std::uint32_t lanes, int target) {
    if (lanes != live_) together_ = false;
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (lanes >> lane & 1) next_[lane] = target;
    }
}

void Warp::arrive(const Instruction& instruction, std::uint32_t lanes) {
    if (lanes != ALL_LANES) {
        report("barrier in a divergent branch", instruction, [&] { return "lanes " + hex(lanes); });
    }
    state_ = State::at_barrier;
    barrier_line_ = instruction.line;
}

}  // namespace ptx
