// A PTX kernel as a list of decoded instructions.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace ptx {

// The contents of a register or an immediate; narrower types lie in the low bits.
using Bits = std::uint64_t;

// Dynamic shared memory starts here, so that an address that forgot its base is out of bounds.
constexpr std::uint32_t SHARED_BASE = 1024;
constexpr unsigned LANES = 32;
constexpr std::uint32_t ALL_LANES = 0xffffffffu;

enum class Special { tid_x, ctaid_x, ctaid_y, ctaid_z, nctaid_x, nctaid_y, nctaid_z, laneid };

struct Operand {
    enum class Kind { reg, immediate, special, parameter, sink } kind = Kind::immediate;
    int index = 0;   // of the register or the parameter
    Bits value = 0;  // of the immediate; added to the register in an address
    Special special{};
};

class Warp;
struct Instruction;

// Executes an instruction for the lanes of a warp that are set in the mask.
using Handler = void (*)(Warp&, const Instruction&, std::uint32_t lanes);
// The value of an instruction that looks at nothing but its inputs.
using Function = Bits (*)(Bits, Bits, Bits);

struct Instruction {
    std::string opcode;  // with its modifiers, as in "add.s32"
    Handler handler = nullptr;
    Function function = nullptr;
    int guard = -1;  // predicate register, if there is one
    bool guard_negated = false;
    std::vector<std::vector<Operand>> operands;  // {a, b} is one of two; a scalar one of one
    std::string label;                           // of a branch
    int target = -1;                             // the instruction behind that label
    int line = 0;                                // in the PTX text, from 1
    // What handlers read off the opcode.
    unsigned bytes = 0;  // per element in memory
    bool sign = false;   // whether loads extend the sign
    bool transposed = false;
};

struct Program {
    std::vector<Instruction> instructions;
    std::unordered_map<std::string, int> registers;
    std::unordered_map<std::string, int> parameters;
    unsigned threads = 0;  // per CTA
};

inline bool starts_with(const std::string& text, const std::string& start) {
    return text.compare(0, start.size(), start) == 0;
}

// Throws std::runtime_error with the line at fault.
Program parse(const std::string& text);

// Choose the handler; throws std::runtime_error for an opcode that is not known.
void decode(Instruction& instruction);

}  // namespace ptx
