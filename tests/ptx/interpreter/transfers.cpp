// Loads, stores and asynchronous copies.
#include <cstring>

#include "handlers.hpp"

namespace ptx {
namespace {

Bits extended(const std::uint8_t* from, const Instruction& i) {
    Bits value = 0;
    std::memcpy(&value, from, i.bytes);
    const unsigned unused = 64 - 8 * i.bytes;
    if (i.sign && unused != 0) return Bits(static_cast<std::int64_t>(value << unused) >> unused);
    return value;
}

unsigned bytes_of(const Instruction& i, std::size_t operand) {
    return i.bytes * static_cast<unsigned>(i.operands[operand].size());
}

template <typename Read>
void load(Warp& warp, const Instruction& i, std::uint32_t lanes, Read read) {
    warp.need(i, 1, lanes);
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        std::uint8_t value[64];
        read(warp.get(i, 1, lane), bytes_of(i, 0), value, warp.access(i, lane));
        for (std::size_t part = 0; part < i.operands[0].size(); ++part) {
            warp.set(i.operands[0][part], lane, extended(value + part * i.bytes, i));
        }
    }
}

template <typename Write>
void store(Warp& warp, const Instruction& i, std::uint32_t lanes, Write write) {
    warp.need(i, 0, lanes);
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        std::uint8_t value[64];
        for (std::size_t part = 0; part < i.operands[1].size(); ++part) {
            const Bits bits = warp.get(i.operands[1][part], lane);
            std::memcpy(value + part * i.bytes, &bits, i.bytes);
        }
        write(warp.get(i, 0, lane), bytes_of(i, 1), value, warp.access(i, lane));
    }
}

}  // namespace

void load_global(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    auto& launch = warp.launch;
    load(
        warp, i, lanes,
        [&](Bits address, unsigned bytes, std::uint8_t* into, const Access& access) {
            launch.global.read(address, bytes, into, access, launch.reports);
        }
    );
}

void store_global(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    auto& launch = warp.launch;
    store(
        warp, i, lanes,
        [&](Bits address, unsigned bytes, const std::uint8_t* from, const Access& access) {
            launch.global.write(address, bytes, from, access, launch.reports);
        }
    );
}

void load_shared(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    load(
        warp, i, lanes,
        [&](Bits address, unsigned bytes, std::uint8_t* into, const Access& access) {
            warp.cta.shared.read(
                std::uint32_t(address), bytes, into, access, warp.now(), warp.launch.reports
            );
        }
    );
}

void store_shared(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    store(
        warp, i, lanes,
        [&](Bits address, unsigned bytes, const std::uint8_t* from, const Access& access) {
            warp.cta.shared.write(
                std::uint32_t(address), bytes, from, access, warp.now(), warp.launch.reports
            );
        }
    );
}

void load_parameter(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const Bits value = warp.get(i, 1, lane);
        std::uint8_t bytes[sizeof value];
        std::memcpy(bytes, &value, sizeof value);
        warp.set(i.operands[0][0], lane, extended(bytes, i));
    }
}

// cp.async [shared], [global], size, read: what is not read is zero.
void copy_async(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    warp.need(i, 0, lanes);
    auto& launch = warp.launch;
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const auto access = warp.access(i, lane);
        const auto size = static_cast<unsigned>(warp.get(i, 2, lane));
        const auto read =
            i.operands.size() > 3 ? static_cast<unsigned>(warp.get(i, 3, lane)) : size;
        Copy copy{static_cast<std::uint32_t>(warp.get(i, 0, lane)), size, {}};
        if (size > copy.value.size() || (read != 0 && read != size)) {
            warp.report("copy of a size that is not known", i, [&] {
                return std::to_string(read);
            });
            continue;
        }
        const auto source = warp.get(i, 1, lane);
        if (read != 0) launch.global.read(source, read, copy.value.data(), access, launch.reports);
        if (warp.cta.shared.begin_copy(copy.address, size, access, warp.now(), launch.reports)) {
            warp.copies[lane].back().push_back(copy);
        }
    }
}

void commit_copies(Warp& warp, const Instruction&, std::uint32_t lanes) {
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (lanes >> lane & 1) warp.copies[lane].emplace_back();
    }
}

// Copies land as late as they may: here. All but the newest groups that were committed.
void wait_for_copies(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    const bool all = i.operands.empty();
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        auto& groups = warp.copies[lane];
        const std::size_t kept = all ? 0 : 1 + std::size_t(warp.get(i, 0, lane));
        while (groups.size() > kept) {
            for (const auto& copy : groups.front()) {
                warp.cta.shared.land(
                    copy.address, copy.bytes, copy.value.data(), warp.access(i, lane), warp.now()
                );
            }
            groups.erase(groups.begin());
        }
        if (groups.empty()) groups.emplace_back();
    }
}

}  // namespace ptx
