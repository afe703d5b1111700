// The checks of each access: whose memory it is, whether it holds anything yet, and who else was
// there.
#include "memory.hpp"

#include <cstdio>
#include <cstring>

namespace ptx {
namespace {

std::string where(const Access& access) {
    return "CTA " + access.cta + " warp " + std::to_string(access.warp) + " lane " +
           std::to_string(access.lane);
}

std::string at_address(const Access& access, std::uint64_t address, unsigned bytes) {
    return where(access) + ": " + std::to_string(bytes) + " bytes at " + hex(address);
}

}  // namespace

std::string hex(std::uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

const View* GlobalMemory::view_of(
    std::uint64_t address, unsigned bytes, const char* kind, const Access& access, Reports& reports
) {
    const auto index = (address >> VIEW_BITS) - 1;
    const auto report = [&](const char* what, const std::string& more) -> const View* {
        reports.add(what, access.line, [&] { return at_address(access, address, bytes) + more; });
        return nullptr;
    };
    if (index >= views_.size()) return report("stray global access", ", in no tensor");
    const auto& view = views_[index];
    const auto name = [&] {
        return std::string(", ") + kind + " of parameter " + std::to_string(index);
    };
    if (address % bytes != 0) return report("misaligned global access", name());
    const auto offset = address - view.address;
    const auto first = offset / view.element_bytes;
    const auto last = (offset + bytes - 1) / view.element_bytes;
    if (address < view.address || last >= view.elements) {
        return report("stray global access", name() + ", outside of it");
    }
    for (auto element = first; element <= last; ++element) {
        if (!view.present[element])
            return report("stray global access", name() + ", between its rows");
    }
    return &view;
}

bool GlobalMemory::read(
    std::uint64_t address, unsigned bytes, std::uint8_t* into, const Access& access,
    Reports& reports
) {
    const auto* view = view_of(address, bytes, "read", access, reports);
    if (view != nullptr && !view->readable) {
        reports.add("read of an output or of an unused tensor", access.line, [&] {
            return at_address(access, address, bytes);
        });
        view = nullptr;
    }
    if (view == nullptr) {
        std::memset(into, 0xff, bytes);
        return false;
    }
    std::memcpy(into, view->host + (address - view->address), bytes);
    return true;
}

void GlobalMemory::write(
    std::uint64_t address, unsigned bytes, const std::uint8_t* from, const Access& access,
    Reports& reports
) {
    const auto* view = view_of(address, bytes, "write", access, reports);
    if (view == nullptr) return;
    if (view->writes == nullptr) {
        reports.add("write into an input", access.line, [&] {
            return at_address(access, address, bytes);
        });
        return;
    }
    const auto offset = address - view->address;
    std::memcpy(view->host + offset, from, bytes);
    bool again = false;
    for (unsigned i = 0; i < bytes; ++i) {
        auto& count = view->writes[offset + i];
        again = again || count != 0;
        if (count < 255) ++count;
    }
    if (again)
        reports.add("output written twice", access.line, [&] {
            return at_address(access, address, bytes);
        });
}

Byte* SharedMemory::at(
    std::uint32_t address, unsigned bytes, const Access& access, Reports& reports
) {
    const std::uint64_t offset = std::uint64_t(address) - SHARED_BASE;
    if (address < SHARED_BASE || offset + bytes > bytes_.size()) {
        reports.add("stray shared access", access.line, [&] {
            return at_address(access, address, bytes);
        });
        return nullptr;
    }
    if (address % bytes != 0) {
        reports.add("misaligned shared access", access.line, [&] {
            return at_address(access, address, bytes);
        });
        return nullptr;
    }
    return &bytes_[offset];
}

bool SharedMemory::read(
    std::uint32_t address, unsigned bytes, std::uint8_t* into, const Access& access, Clock now,
    Reports& reports
) {
    std::memset(into, 0xff, bytes);
    auto* first = at(address, bytes, access, reports);
    if (first == nullptr) return false;
    const auto report = [&](const char* kind) {
        reports.add(kind, access.line, [&] { return at_address(access, address, bytes); });
    };
    const std::uint32_t me = 1u << access.warp;
    bool foreign = false, handed_over = false, untouched = false, in_flight = false;
    for (unsigned i = 0; i < bytes; ++i) {
        auto& byte = first[i];
        into[i] = byte.value;
        untouched = untouched || byte.state == Byte::State::untouched;
        in_flight = in_flight || byte.state == Byte::State::in_flight;
        if (byte.write_interval == now.interval) {
            foreign = foreign || (byte.writers & ~me);
            const bool unsynchronised = byte.warp_sync == now.warp_sync;
            handed_over = handed_over || (unsynchronised && byte.writer_lane != access.lane);
        }
        if (byte.read_interval != now.interval) byte.readers = 0;
        byte.read_interval = now.interval;
        byte.readers |= me;
    }
    if (untouched) report("read of uninitialised shared memory");
    if (in_flight) report("read of a copy in flight");
    if (foreign && !in_flight) report("race: read after write without a barrier");
    if (handed_over && !foreign && !in_flight)
        report("note: handed over in a warp without bar.warp.sync");
    return true;
}

// Mark a byte as written by a warp; a negative value is one that is not known yet.
void SharedMemory::claim(
    Byte& byte, int value, const Access& access, Clock now, std::uint32_t address, Reports& reports
) {
    const std::uint32_t me = 1u << access.warp;
    const auto report = [&](const char* kind) {
        reports.add(kind, access.line, [&] { return at_address(access, address, 1); });
    };
    if (byte.state == Byte::State::in_flight) report("write onto a copy in flight");
    if (byte.read_interval == now.interval && (byte.readers & ~me)) {
        report("race: write after read without a barrier");
    }
    if (byte.write_interval != now.interval) {
        byte.writers = 0;
    } else if ((byte.writers & ~me) && byte.state != Byte::State::in_flight) {
        const bool same = value == byte.value;
        report(
            same ? "note: the same value written by several warps"
                 : "race: write after write without a barrier"
        );
    }
    byte.write_interval = now.interval;
    byte.writers |= me;
    byte.writer_lane = static_cast<std::uint8_t>(access.lane);
    byte.warp_sync = now.warp_sync;
}

void SharedMemory::write(
    std::uint32_t address, unsigned bytes, const std::uint8_t* from, const Access& access,
    Clock now, Reports& reports
) {
    auto* first = at(address, bytes, access, reports);
    if (first == nullptr) return;
    for (unsigned i = 0; i < bytes; ++i) {
        claim(first[i], from[i], access, now, address + i, reports);
        first[i].state = Byte::State::written;
        first[i].value = from[i];
    }
}

bool SharedMemory::begin_copy(
    std::uint32_t address, unsigned bytes, const Access& access, Clock now, Reports& reports
) {
    auto* first = at(address, bytes, access, reports);
    if (first == nullptr) return false;
    for (unsigned i = 0; i < bytes; ++i) {
        claim(first[i], -1, access, now, address + i, reports);
        first[i].state = Byte::State::in_flight;
        first[i].value = 0xff;
    }
    return true;
}

void SharedMemory::land(
    std::uint32_t address, unsigned bytes, const std::uint8_t* from, const Access& access, Clock now
) {
    auto* first = &bytes_[address - SHARED_BASE];
    for (unsigned i = 0; i < bytes; ++i) {
        auto& byte = first[i];
        byte.state = Byte::State::written;
        byte.value = from[i];
        if (byte.write_interval != now.interval) byte.writers = 0;
        byte.write_interval = now.interval;
        byte.writers |= 1u << access.warp;
        byte.writer_lane = static_cast<std::uint8_t>(access.lane);
        byte.warp_sync = now.warp_sync;
    }
}

}  // namespace ptx
