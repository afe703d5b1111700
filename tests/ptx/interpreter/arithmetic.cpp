// Instructions whose result follows from their inputs alone, as one table.
#include "arithmetic.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "numbers.hpp"

namespace ptx {
namespace {

using Table = std::unordered_map<std::string, Operation>;

// Fit for all whole numbers: shifts and products are done without a sign, which wraps around.
template <typename T>
void add_whole(Table& table, const std::string& type) {
    using U = std::make_unsigned_t<T>;
    constexpr unsigned width = 8 * sizeof(T);
    const auto name = [&](const char* operation) { return operation + type; };
    table[name("add.")] = {2, [](Bits a, Bits b, Bits) { return Bits(U(a + b)); }};
    table[name("sub.")] = {2, [](Bits a, Bits b, Bits) { return Bits(U(a - b)); }};
    table[name("mul.lo.")] = {2, [](Bits a, Bits b, Bits) { return Bits(U(a * b)); }};
    table[name("mad.lo.")] = {3, [](Bits a, Bits b, Bits c) { return Bits(U(a * b + c)); }};
    table[name("neg.")] = {1, [](Bits a, Bits, Bits) { return Bits(U(0 - a)); }};
    table[name("min.")] = {2, [](Bits a, Bits b, Bits) { return Bits(U(std::min(T(a), T(b)))); }};
    table[name("max.")] = {2, [](Bits a, Bits b, Bits) { return Bits(U(std::max(T(a), T(b)))); }};
    // The smallest number divided by -1 would stop the host.
    table[name("div.")] = {2, [](Bits a, Bits b, Bits) {
        if (T(b) == 0) return Bits(U(-1));
        return Bits(U(std::is_signed_v<T> && T(b) == T(-1) ? U(0 - a) : U(T(a) / T(b))));
    }};
    table[name("rem.")] = {2, [](Bits a, Bits b, Bits) {
        if (T(b) == 0) return Bits(U(a));
        return Bits(U(std::is_signed_v<T> && T(b) == T(-1) ? U(0) : U(T(a) % T(b))));
    }};
    table[name("shr.")] = {2, [](Bits a, Bits b, Bits) {
        const bool all = std::uint32_t(b) >= width;
        return Bits(U(all ? (T(a) < 0 ? T(-1) : T(0)) : T(T(a) >> std::uint32_t(b))));
    }};
    table[name("setp.lt.")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) < T(b)); }};
    table[name("setp.le.")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) <= T(b)); }};
    table[name("setp.gt.")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) > T(b)); }};
    table[name("setp.ge.")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) >= T(b)); }};
    table[name("setp.eq.")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) == T(b)); }};
    table[name("setp.ne.")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) != T(b)); }};
    table[name("bfe.")] = {3, [](Bits a, Bits b, Bits c) {
        const unsigned start = b & 0xff, length = c & 0xff;
        Bits result = 0;
        for (unsigned i = 0; i < width; ++i) {
            const bool inside = i < length && start + i < width;
            const unsigned top = std::min(start + length - 1, width - 1);
            const bool sign = std::is_signed_v<T> && length > 0 && (a >> top & 1);
            result |= Bits(inside ? a >> (start + i) & 1 : sign) << i;
        }
        return result;
    }};
}

template <typename T>
void add_bits(Table& table, const std::string& width) {
    const auto name = [&](const char* operation) { return operation + width; };
    table[name("and.b")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a & b)); }};
    table[name("or.b")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a | b)); }};
    table[name("xor.b")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a ^ b)); }};
    table[name("not.b")] = {1, [](Bits a, Bits, Bits) { return Bits(T(~a)); }};
    table[name("shl.b")] = {2, [](Bits a, Bits b, Bits) {
        return std::uint32_t(b) >= 8 * sizeof(T) ? Bits(0) : Bits(T(a << std::uint32_t(b)));
    }};
    table[name("setp.eq.b")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) == T(b)); }};
    table[name("setp.ne.b")] = {2, [](Bits a, Bits b, Bits) { return Bits(T(a) != T(b)); }};
    for (const char* type : {"b", "u", "s", "f"}) {
        table[std::string("mov.") + type + width] = {1, [](Bits a, Bits, Bits) { return Bits(T(a)); }};
        table[std::string("selp.") + type + width] = {
            3, [](Bits a, Bits b, Bits p) { return Bits(T(p & 1 ? a : b)); }};
    }
}

// Products of twice the width.
template <typename T, typename Wide>
void add_wide(Table& table, const std::string& type) {
    table["mul.wide." + type] = {2, [](Bits a, Bits b, Bits) { return Bits(Wide(T(a)) * Wide(T(b))); }};
    table["mad.wide." + type] = {3, [](Bits a, Bits b, Bits c) { return Bits(Wide(T(a)) * Wide(T(b))) + c; }};
    table["mul.hi." + type] = {2, [](Bits a, Bits b, Bits) {
        return Bits(std::uint32_t(Wide(T(a)) * Wide(T(b)) >> 8 * sizeof(T)));
    }};
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

template <bool flushed>
float in(Bits a) { return flushed ? flush(as_float(a)) : as_float(a); }

template <bool flushed>
Bits out(float a) { return of_float(flushed ? flush(a) : a); }

// With and without ".ftz": numbers below the normal ones are zero.
template <bool Z>
void add_float(Table& table) {
    const auto add = [&](const std::string& start, int inputs, Function function) {
        table[start + (Z ? ".ftz.f32" : ".f32")] = {inputs, function};
    };
    for (const char* rounding : {"", ".rn"}) {
        const std::string r = rounding;
        add("add" + r, 2, [](Bits a, Bits b, Bits) { return out<Z>(in<Z>(a) + in<Z>(b)); });
        add("sub" + r, 2, [](Bits a, Bits b, Bits) { return out<Z>(in<Z>(a) - in<Z>(b)); });
        add("mul" + r, 2, [](Bits a, Bits b, Bits) { return out<Z>(in<Z>(a) * in<Z>(b)); });
    }
    add("fma.rn", 3, [](Bits a, Bits b, Bits c) { return out<Z>(std::fma(in<Z>(a), in<Z>(b), in<Z>(c))); });
    add("neg", 1, [](Bits a, Bits, Bits) { return out<Z>(-in<Z>(a)); });
    add("abs", 1, [](Bits a, Bits, Bits) { return out<Z>(std::fabs(in<Z>(a))); });
    add("min", 2, [](Bits a, Bits b, Bits) { return out<Z>(std::fmin(in<Z>(a), in<Z>(b))); });
    add("max", 2, [](Bits a, Bits b, Bits) { return out<Z>(std::fmax(in<Z>(a), in<Z>(b))); });
    for (const char* way : {"div.rn", "div.full", "div.approx"}) {
        add(way, 2, [](Bits a, Bits b, Bits) { return out<Z>(in<Z>(a) / in<Z>(b)); });
    }
    add("ex2.approx", 1, [](Bits a, Bits, Bits) { return out<Z>(std::exp2(in<Z>(a))); });
    add("lg2.approx", 1, [](Bits a, Bits, Bits) { return out<Z>(std::log2(in<Z>(a))); });
    for (const char* way : {"rcp.rn", "rcp.approx"}) {
        add(way, 1, [](Bits a, Bits, Bits) { return out<Z>(1 / in<Z>(a)); });
    }
    for (const char* way : {"sqrt.rn", "sqrt.approx"}) {
        add(way, 1, [](Bits a, Bits, Bits) { return out<Z>(std::sqrt(in<Z>(a))); });
    }
    add("setp.lt", 2, [](Bits a, Bits b, Bits) { return Bits(in<Z>(a) < in<Z>(b)); });
    add("setp.le", 2, [](Bits a, Bits b, Bits) { return Bits(in<Z>(a) <= in<Z>(b)); });
    add("setp.gt", 2, [](Bits a, Bits b, Bits) { return Bits(in<Z>(a) > in<Z>(b)); });
    add("setp.ge", 2, [](Bits a, Bits b, Bits) { return Bits(in<Z>(a) >= in<Z>(b)); });
    add("setp.eq", 2, [](Bits a, Bits b, Bits) { return Bits(in<Z>(a) == in<Z>(b)); });
    // The forms with "u" hold for numbers that cannot be compared, too.
    add("setp.ltu", 2, [](Bits a, Bits b, Bits) { return Bits(!(in<Z>(a) >= in<Z>(b))); });
    add("setp.leu", 2, [](Bits a, Bits b, Bits) { return Bits(!(in<Z>(a) > in<Z>(b))); });
    add("setp.gtu", 2, [](Bits a, Bits b, Bits) { return Bits(!(in<Z>(a) <= in<Z>(b))); });
    add("setp.geu", 2, [](Bits a, Bits b, Bits) { return Bits(!(in<Z>(a) < in<Z>(b))); });
    add("setp.neu", 2, [](Bits a, Bits b, Bits) { return Bits(!(in<Z>(a) == in<Z>(b))); });
    add("setp.nan", 2, [](Bits a, Bits b, Bits) { return Bits(std::isnan(as_float(a)) || std::isnan(as_float(b))); });
    add("setp.num", 2, [](Bits a, Bits b, Bits) { return Bits(!std::isnan(as_float(a)) && !std::isnan(as_float(b))); });
}

// Two numbers side by side.
template <Function function>
Bits on_both(Bits a, Bits b, Bits c) {
    const auto low = [](Bits bits) { return bits & 0xffffffffu; };
    return function(a >> 32, b >> 32, c >> 32) << 32 | low(function(low(a), low(b), low(c)));
}

Bits add_one(Bits a, Bits b, Bits) { return of_float(as_float(a) + as_float(b)); }
Bits subtract_one(Bits a, Bits b, Bits) { return of_float(as_float(a) - as_float(b)); }
Bits multiply_one(Bits a, Bits b, Bits) { return of_float(as_float(a) * as_float(b)); }
Bits fuse_one(Bits a, Bits b, Bits c) { return of_float(std::fma(as_float(a), as_float(b), as_float(c))); }

void add_pairs(Table& table) {
    for (const char* rounding : {"", ".rn"}) {
        const std::string type = std::string(rounding) + ".f32x2";
        table["add" + type] = {2, on_both<add_one>};
        table["sub" + type] = {2, on_both<subtract_one>};
        table["mul" + type] = {2, on_both<multiply_one>};
        table["fma" + type] = {3, on_both<fuse_one>};
    }
}

template <typename T>
T cut(float value) {
    if (std::isnan(value)) return 0;
    const double whole = std::trunc(double(value));
    return T(std::clamp(whole, double(std::numeric_limits<T>::min()), double(std::numeric_limits<T>::max())));
}

void add_half(Table& table) {
    table["cvt.f32.f16"] = {1, [](Bits a, Bits, Bits) { return of_float(half_to_float(std::uint16_t(a))); }};
    table["cvt.f32.bf16"] = {1, [](Bits a, Bits, Bits) { return of_float(bfloat_to_float(std::uint16_t(a))); }};
    table["cvt.rn.f16.f32"] = {1, [](Bits a, Bits, Bits) { return Bits(float_to_half(as_float(a))); }};
    table["cvt.rn.bf16.f32"] = {1, [](Bits a, Bits, Bits) { return Bits(float_to_bfloat(as_float(a))); }};
    table["cvt.rn.f16x2.f32"] = {2, [](Bits a, Bits b, Bits) {
        return Bits(float_to_half(as_float(a))) << 16 | float_to_half(as_float(b));
    }};
    table["cvt.rn.bf16x2.f32"] = {2, [](Bits a, Bits b, Bits) {
        return Bits(float_to_bfloat(as_float(a))) << 16 | float_to_bfloat(as_float(b));
    }};
    table["cvt.rzi.s16.f32"] = {1, [](Bits a, Bits, Bits) { return Bits(std::uint16_t(cut<std::int16_t>(as_float(a)))); }};
    table["cvt.rzi.s32.f32"] = {1, [](Bits a, Bits, Bits) { return Bits(std::uint32_t(cut<std::int32_t>(as_float(a)))); }};
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

Table make_table() {
    Table table;
    add_whole<std::uint16_t>(table, "u16"), add_whole<std::int16_t>(table, "s16");
    add_whole<std::uint32_t>(table, "u32"), add_whole<std::int32_t>(table, "s32");
    add_whole<std::uint64_t>(table, "u64"), add_whole<std::int64_t>(table, "s64");
    add_bits<std::uint16_t>(table, "16");
    add_bits<std::uint32_t>(table, "32");
    add_bits<std::uint64_t>(table, "64");
    add_wide<std::uint16_t, std::uint32_t>(table, "u16"), add_wide<std::int16_t, std::int32_t>(table, "s16");
    add_wide<std::uint32_t, std::uint64_t>(table, "u32"), add_wide<std::int32_t, std::int64_t>(table, "s32");
    add_conversions<std::uint8_t>(table, "u8"), add_conversions<std::int8_t>(table, "s8");
    add_conversions<std::uint16_t>(table, "u16"), add_conversions<std::int16_t>(table, "s16");
    add_conversions<std::uint32_t>(table, "u32"), add_conversions<std::int32_t>(table, "s32");
    add_conversions<std::uint64_t>(table, "u64"), add_conversions<std::int64_t>(table, "s64");
    add_float<false>(table), add_float<true>(table);
    add_half(table);
    add_pairs(table);
    table["and.pred"] = {2, [](Bits a, Bits b, Bits) { return a & b; }};
    table["or.pred"] = {2, [](Bits a, Bits b, Bits) { return a | b; }};
    table["xor.pred"] = {2, [](Bits a, Bits b, Bits) { return a ^ b; }};
    table["not.pred"] = {1, [](Bits a, Bits, Bits) { return a ^ 1; }};
    table["mov.pred"] = {1, [](Bits a, Bits, Bits) { return a & 1; }};
    table["prmt.b32"] = {3, permuted};
    return table;
}

}  // namespace

const Operation* operation_for(const std::string& opcode) {
    static const Table table = make_table();
    const auto found = table.find(opcode);
    return found == table.end() ? nullptr : &found->second;
}

}  // namespace ptx
