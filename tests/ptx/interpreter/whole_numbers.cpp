// Whole numbers, bits, predicates and conversions from whole numbers.
#include <algorithm>
#include <type_traits>

#include "arithmetic.hpp"
#include "numbers.hpp"

namespace ptx {
namespace {

// The smallest number divided by -1 would stop the host.
template <typename T>
Bits divide(Bits a, Bits b, Bits) {
    using U = std::make_unsigned_t<T>;
    if (T(b) == 0) return U(-1);
    return std::is_signed_v<T> && T(b) == T(-1) ? U(0 - a) : U(T(a) / T(b));
}

template <typename T>
Bits remain(Bits a, Bits b, Bits) {
    using U = std::make_unsigned_t<T>;
    if (T(b) == 0) return U(a);
    return std::is_signed_v<T> && T(b) == T(-1) ? U(0) : U(T(a) % T(b));
}

// Shifts by more than the width leave only the sign, or nothing.
template <typename T>
Bits shift_right(Bits a, Bits b, Bits) {
    const auto by = std::min<std::uint32_t>(std::uint32_t(b), 8 * sizeof(T));
    const T half = T(T(a) >> (by / 2));
    return std::make_unsigned_t<T>(half >> (by - by / 2));
}

template <typename T>
Bits shift_left(Bits a, Bits b, Bits) {
    return std::uint32_t(b) >= 8 * sizeof(T) ? Bits(0) : Bits(T(a << std::uint32_t(b)));
}

// Take some bits out, from a start on; signed ones are continued by the last of them.
template <typename T>
Bits extract(Bits a, Bits b, Bits c) {
    constexpr unsigned width = 8 * sizeof(T);
    const unsigned start = b & 0xff, length = c & 0xff;
    const unsigned top = std::min(start + length - 1, width - 1);
    const bool sign = std::is_signed_v<T> && length > 0 && (a >> top & 1);
    Bits result = 0;
    for (unsigned i = 0; i < width; ++i) {
        const bool inside = i < length && start + i < width;
        result |= Bits(inside ? a >> (start + i) & 1 : sign) << i;
    }
    return result;
}

// Fit for all whole numbers: shifts and products are done without a sign, which wraps around.
template <typename T>
void add_whole(Table& table, const std::string& type) {
    using U = std::make_unsigned_t<T>;
    const auto add = [&](const char* start, int inputs, Function function) {
        table[start + type] = {inputs, function};
    };
    add("add.", 2, [](Bits a, Bits b, Bits) { return Bits(U(a + b)); });
    add("sub.", 2, [](Bits a, Bits b, Bits) { return Bits(U(a - b)); });
    add("mul.lo.", 2, [](Bits a, Bits b, Bits) { return Bits(U(a * b)); });
    add("mad.lo.", 3, [](Bits a, Bits b, Bits c) { return Bits(U(a * b + c)); });
    add("neg.", 1, [](Bits a, Bits, Bits) { return Bits(U(0 - a)); });
    add("min.", 2, [](Bits a, Bits b, Bits) { return Bits(U(std::min(T(a), T(b)))); });
    add("max.", 2, [](Bits a, Bits b, Bits) { return Bits(U(std::max(T(a), T(b)))); });
    add("div.", 2, divide<T>);
    add("rem.", 2, remain<T>);
    add("shr.", 2, shift_right<T>);
    add("bfe.", 3, extract<T>);
    add("setp.lt.", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) < T(b)); });
    add("setp.le.", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) <= T(b)); });
    add("setp.gt.", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) > T(b)); });
    add("setp.ge.", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) >= T(b)); });
    add("setp.eq.", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) == T(b)); });
    add("setp.ne.", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) != T(b)); });
}

template <typename T>
void add_bits(Table& table, const std::string& width) {
    const auto add = [&](const std::string& start, int inputs, Function function) {
        table[start + width] = {inputs, function};
    };
    add("and.b", 2, [](Bits a, Bits b, Bits) { return Bits(T(a & b)); });
    add("or.b", 2, [](Bits a, Bits b, Bits) { return Bits(T(a | b)); });
    add("xor.b", 2, [](Bits a, Bits b, Bits) { return Bits(T(a ^ b)); });
    add("not.b", 1, [](Bits a, Bits, Bits) { return Bits(T(~a)); });
    add("shl.b", 2, shift_left<T>);
    add("setp.eq.b", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) == T(b)); });
    add("setp.ne.b", 2, [](Bits a, Bits b, Bits) { return Bits(T(a) != T(b)); });
    for (const char* type : {"b", "u", "s", "f"}) {
        add(std::string("mov.") + type, 1, [](Bits a, Bits, Bits) { return Bits(T(a)); });
        add(std::string("selp.") + type, 3,
            [](Bits a, Bits b, Bits p) { return Bits(T(p & 1 ? a : b)); });
    }
}

template <typename T, typename Wide>
Bits multiply_high(Bits a, Bits b, Bits) {
    return Bits(std::uint32_t(Wide(T(a)) * Wide(T(b)) >> 8 * sizeof(T)));
}

// Products of twice the width.
template <typename T, typename Wide>
void add_wide(Table& table, const std::string& type) {
    const auto add = [&](const char* start, int inputs, Function function) {
        table[start + type] = {inputs, function};
    };
    add("mul.wide.", 2, [](Bits a, Bits b, Bits) { return Bits(Wide(T(a)) * Wide(T(b))); });
    add("mad.wide.", 3, [](Bits a, Bits b, Bits c) { return Bits(Wide(T(a)) * Wide(T(b))) + c; });
    add("mul.hi.", 2, multiply_high<T, Wide>);
}

template <typename From>
void add_conversions(Table& table, const std::string& from) {
    const auto add = [&](const char* to, Function function) {
        table[std::string("cvt.") + to + "." + from] = {1, function};
    };
    add("u16", [](Bits a, Bits, Bits) { return Bits(std::uint16_t(From(a))); });
    add("s16", [](Bits a, Bits, Bits) { return Bits(std::uint16_t(From(a))); });
    add("u32", [](Bits a, Bits, Bits) { return Bits(std::uint32_t(From(a))); });
    add("s32", [](Bits a, Bits, Bits) { return Bits(std::uint32_t(From(a))); });
    add("u64", [](Bits a, Bits, Bits) { return Bits(From(a)); });
    add("s64", [](Bits a, Bits, Bits) { return Bits(From(a)); });
    add("rn.f32", [](Bits a, Bits, Bits) { return of_float(float(From(a))); });
}

Bits permuted(Bits a, Bits b, Bits selectors) {
    const Bits pool = (b << 32) | std::uint32_t(a);
    Bits result = 0;
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned selector = selectors >> (4 * i) & 0xf;
        Bits byte = pool >> (8 * (selector & 7)) & 0xff;
        if (selector & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}

}  // namespace

void add_whole_numbers(Table& table) {
    add_whole<std::uint16_t>(table, "u16"), add_whole<std::int16_t>(table, "s16");
    add_whole<std::uint32_t>(table, "u32"), add_whole<std::int32_t>(table, "s32");
    add_whole<std::uint64_t>(table, "u64"), add_whole<std::int64_t>(table, "s64");
    add_bits<std::uint16_t>(table, "16");
    add_bits<std::uint32_t>(table, "32");
    add_bits<std::uint64_t>(table, "64");
    add_wide<std::uint16_t, std::uint32_t>(table, "u16");
    add_wide<std::int16_t, std::int32_t>(table, "s16");
    add_wide<std::uint32_t, std::uint64_t>(table, "u32");
    add_wide<std::int32_t, std::int64_t>(table, "s32");
    add_conversions<std::uint8_t>(table, "u8"), add_conversions<std::int8_t>(table, "s8");
    add_conversions<std::uint16_t>(table, "u16"), add_conversions<std::int16_t>(table, "s16");
    add_conversions<std::uint32_t>(table, "u32"), add_conversions<std::int32_t>(table, "s32");
    add_conversions<std::uint64_t>(table, "u64"), add_conversions<std::int64_t>(table, "s64");
    table["and.pred"] = {2, [](Bits a, Bits b, Bits) { return a & b; }};
    table["or.pred"] = {2, [](Bits a, Bits b, Bits) { return a | b; }};
    table["xor.pred"] = {2, [](Bits a, Bits b, Bits) { return a ^ b; }};
    table["not.pred"] = {1, [](Bits a, Bits, Bits) { return a ^ 1; }};
    table["mov.pred"] = {1, [](Bits a, Bits, Bits) { return a & 1; }};
    table["prmt.b32"] = {3, permuted};
}

}  // namespace ptx
