// From opcodes to handlers, and the handlers of control, moves and shuffles.
#include <stdexcept>

#include "arithmetic.hpp"
#include "handlers.hpp"

namespace ptx {
namespace {

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

void compute(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    warp.need(i, 1, lanes);
    const auto inputs = i.operands.size() - 1;
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const Bits a = warp.get(i, 1, lane);
        const Bits b = inputs > 1 ? warp.get(i, 2, lane) : 0;
        const Bits c = inputs > 2 ? warp.get(i, 3, lane) : 0;
        warp.set(i.operands[0][0], lane, i.function(a, b, c));
    }
}

// mov.b32 d, {low, high} and mov.b64 d, {low, high}.
void pack(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    warp.need(i, 1, lanes);
    const unsigned width = 8 * i.bytes / 2;
    const Bits mask = (Bits(1) << width) - 1;
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const Bits low = warp.get(i.operands[1][0], lane) & mask;
        const Bits high = warp.get(i.operands[1][1], lane) & mask;
        warp.set(i.operands[0][0], lane, high << width | low);
    }
}

void unpack(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    warp.need(i, 1, lanes);
    const unsigned width = 8 * i.bytes / 2;
    const Bits mask = (Bits(1) << width) - 1;
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const Bits value = warp.get(i, 1, lane);
        warp.set(i.operands[0][0], lane, value & mask);
        warp.set(i.operands[0][1], lane, value >> width & mask);
    }
}

// shfl.sync.MODE d, a, b, c, mask: the lane that each lane's value comes from.
template <typename Source>
void shuffle(Warp& warp, const Instruction& i, std::uint32_t lanes, Source source) {
    warp.need(i, 1, lanes);
    Bits values[LANES];
    for (unsigned lane = 0; lane < LANES; ++lane) values[lane] = warp.get(i, 1, lane);
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const auto mask = static_cast<std::uint32_t>(warp.get(i, 4, lane));
        const auto limit = static_cast<unsigned>(warp.get(i, 3, lane));
        if (mask != lanes || limit >> 8 != 0) {
            warp.report("shuffle among other lanes than it names", i, [&] {
                return "mask " + hex(mask);
            });
        }
        const unsigned from = source(lane, static_cast<unsigned>(warp.get(i, 2, lane)), limit & 31);
        warp.set(i.operands[0][0], lane, values[from < LANES ? from : lane]);
    }
}

void shuffle_across(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    shuffle(warp, i, lanes, [](unsigned lane, unsigned b, unsigned limit) {
        return (lane ^ b) <= limit ? lane ^ b : lane;
    });
}

void shuffle_from(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    shuffle(warp, i, lanes, [](unsigned lane, unsigned b, unsigned limit) {
        return (b & 31) <= limit ? b & 31 : lane;
    });
}

void shuffle_down(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    shuffle(warp, i, lanes, [](unsigned lane, unsigned b, unsigned limit) {
        return lane + b <= limit ? lane + b : lane;
    });
}

void shuffle_up(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    shuffle(warp, i, lanes, [](unsigned lane, unsigned b, unsigned) {
        return lane >= b ? lane - b : lane;
    });
}

void branch(Warp& warp, const Instruction& i, std::uint32_t lanes) { warp.jump(lanes, i.target); }
void leave(Warp& warp, const Instruction&, std::uint32_t lanes) { warp.stop(lanes); }
void barrier(Warp& warp, const Instruction& i, std::uint32_t lanes) { warp.arrive(i, lanes); }

void warp_barrier(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    if (warp.all_lanes(i, lanes)) ++warp.warp_sync;
}

struct Entry {
    const char* opcode;
    Handler handler;
};

const Entry WHOLE[] = {
    {"bra", branch},
    {"bra.uni", branch},
    {"ret", leave},
    {"exit", leave},
    {"bar.sync", barrier},
    {"barrier.sync", barrier},
    {"bar.warp.sync", warp_barrier},
    {"cp.async.commit_group", commit_copies},
    {"cp.async.wait_group", wait_for_copies},
    {"cp.async.wait_all", wait_for_copies},
    {"cp.async.ca.shared.global", copy_async},
    {"cp.async.cg.shared.global", copy_async},
    {"ldmatrix.sync.aligned.m8n8.x1.shared.b16", load_matrix},
    {"ldmatrix.sync.aligned.m8n8.x2.shared.b16", load_matrix},
    {"ldmatrix.sync.aligned.m8n8.x4.shared.b16", load_matrix},
    {"ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16", load_matrix},
    {"ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16", load_matrix},
    {"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", load_matrix},
    {"stmatrix.sync.aligned.m8n8.x1.shared.b16", store_matrix},
    {"stmatrix.sync.aligned.m8n8.x2.shared.b16", store_matrix},
    {"stmatrix.sync.aligned.m8n8.x4.shared.b16", store_matrix},
    {"stmatrix.sync.aligned.m8n8.x1.trans.shared.b16", store_matrix},
    {"stmatrix.sync.aligned.m8n8.x2.trans.shared.b16", store_matrix},
    {"stmatrix.sync.aligned.m8n8.x4.trans.shared.b16", store_matrix},
    {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", multiply_halves},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", multiply_bfloats},
    {"mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32", multiply_bytes},
    {"shfl.sync.bfly.b32", shuffle_across},
    {"shfl.sync.idx.b32", shuffle_from},
    {"shfl.sync.down.b32", shuffle_down},
    {"shfl.sync.up.b32", shuffle_up},
};

// With any number of elements, of any type.
const Entry STARTS[] = {
    {"ld.param.", load_parameter}, {"ld.global.", load_global},  {"st.global.", store_global},
    {"ld.shared.", load_shared},   {"st.shared.", store_shared},
};

Handler handler_of(const std::string& opcode) {
    for (const auto& entry : WHOLE) {
        if (opcode == entry.opcode) return entry.handler;
    }
    for (const auto& entry : STARTS) {
        if (starts_with(opcode, entry.opcode)) return entry.handler;
    }
    return nullptr;
}

const Operation* operation_for(const std::string& opcode) {
    static const Table table = [] {
        Table all;
        add_whole_numbers(all);
        add_floats(all);
        return all;
    }();
    const auto found = table.find(opcode);
    return found == table.end() ? nullptr : &found->second;
}

unsigned bytes_of(const std::string& type) {
    for (unsigned bits : {64, 32, 16, 8}) {
        if (contains(type, std::to_string(bits))) return bits / 8;
    }
    return 0;
}

}  // namespace

void decode(Instruction& instruction) {
    const auto& opcode = instruction.opcode;
    const auto type = opcode.substr(opcode.find_last_of('.') + 1);
    instruction.bytes = bytes_of(type);
    instruction.sign = type[0] == 's';
    instruction.transposed = contains(opcode, ".trans");
    instruction.handler = handler_of(opcode);
    if (instruction.handler != nullptr) return;
    const bool packs = instruction.operands.size() == 2 && instruction.operands[1].size() == 2;
    const bool unpacks = instruction.operands.size() == 2 && instruction.operands[0].size() == 2;
    if (starts_with(opcode, "mov.b") && (packs || unpacks)) {
        instruction.handler = packs ? pack : unpack;
        return;
    }
    const auto* operation = operation_for(opcode);
    if (operation == nullptr) throw std::runtime_error("the opcode '" + opcode + "' is not known");
    if (instruction.operands.size() != std::size_t(operation->inputs) + 1) {
        throw std::runtime_error("'" + opcode + "' has another number of operands than expected");
    }
    instruction.handler = compute;
    instruction.function = operation->apply;
}

}  // namespace ptx
