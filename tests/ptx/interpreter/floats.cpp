// Floats, and conversions from them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "arithmetic.hpp"
#include "numbers.hpp"

namespace ptx {
namespace {

template <bool flushed>
float in(Bits a) {
    return flushed ? flush(as_float(a)) : as_float(a);
}

template <bool flushed>
Bits out(float a) {
    return of_float(flushed ? flush(a) : a);
}

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
    add("fma.rn", 3,
        [](Bits a, Bits b, Bits c) { return out<Z>(std::fma(in<Z>(a), in<Z>(b), in<Z>(c))); });
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
    add("setp.nan", 2, [](Bits a, Bits b, Bits) {
        return Bits(std::isnan(as_float(a)) || std::isnan(as_float(b)));
    });
    add("setp.num", 2, [](Bits a, Bits b, Bits) {
        return Bits(!std::isnan(as_float(a)) && !std::isnan(as_float(b)));
    });
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
Bits fuse_one(Bits a, Bits b, Bits c) {
    return of_float(std::fma(as_float(a), as_float(b), as_float(c)));
}

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
    return T(
        std::clamp(
            whole, double(std::numeric_limits<T>::min()), double(std::numeric_limits<T>::max())
        )
    );
}

Bits from_half(Bits a, Bits, Bits) { return of_float(half_to_float(std::uint16_t(a))); }
Bits from_bfloat(Bits a, Bits, Bits) { return of_float(bfloat_to_float(std::uint16_t(a))); }
Bits to_half(Bits a, Bits, Bits) { return float_to_half(as_float(a)); }
Bits to_bfloat(Bits a, Bits, Bits) { return float_to_bfloat(as_float(a)); }

template <Function convert>
Bits to_both(Bits high, Bits low, Bits) {
    return convert(high, 0, 0) << 16 | convert(low, 0, 0);
}

template <typename T>
Bits to_whole(Bits a, Bits, Bits) {
    return std::make_unsigned_t<T>(cut<T>(as_float(a)));
}

void add_float_conversions(Table& table) {
    table["cvt.f32.f16"] = {1, from_half};
    table["cvt.f32.bf16"] = {1, from_bfloat};
    table["cvt.rn.f16.f32"] = {1, to_half};
    table["cvt.rn.bf16.f32"] = {1, to_bfloat};
    table["cvt.rn.f16x2.f32"] = {2, to_both<to_half>};
    table["cvt.rn.bf16x2.f32"] = {2, to_both<to_bfloat>};
    table["cvt.rzi.s16.f32"] = {1, to_whole<std::int16_t>};
    table["cvt.rzi.s32.f32"] = {1, to_whole<std::int32_t>};
}

}  // namespace

void add_floats(Table& table) {
    add_float<false>(table);
    add_float<true>(table);
    add_pairs(table);
    add_float_conversions(table);
}

}  // namespace ptx
