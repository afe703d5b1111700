// Floats in registers, and the two formats of 16 bits, rounded to nearest even.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "program.hpp"

namespace ptx {

inline float as_float(Bits bits) {
    const auto narrow = static_cast<std::uint32_t>(bits);
    float value;
    std::memcpy(&value, &narrow, sizeof value);
    return value;
}

inline Bits of_float(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float flush(float value) {
    return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}

inline float bfloat_to_float(std::uint16_t bits) { return as_float(Bits(bits) << 16); }

inline std::uint16_t float_to_bfloat(float value) {
    if (std::isnan(value)) return 0x7fff;
    const auto bits = static_cast<std::uint32_t>(of_float(value));
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float half_to_float(std::uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float sign = bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(float(fraction), -24);
    return sign * std::ldexp(float(1024 + fraction), exponent - 25);
}

inline std::uint16_t float_to_half(float value) {
    if (std::isnan(value)) return 0x7fff;
    const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
    const float size = std::fabs(value);
    if (size >= 65520.0f) return sign | 0x7c00;  // rounds up to infinity
    // In units of the last place, of which the smallest is 2^-24; rint rounds to even.
    const int exponent = std::max(size > 0 ? std::ilogb(size) : -15, -14);
    const auto units = static_cast<std::uint16_t>(std::rint(std::ldexp(size, 10 - exponent)));
    return static_cast<std::uint16_t>(sign | (((exponent + 14) << 10) + units));
}

}  // namespace ptx
