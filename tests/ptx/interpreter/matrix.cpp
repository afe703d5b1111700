// ldmatrix, stmatrix and mma.sync, with the fragment layouts of the PTX manual.
//
// A lane is named by its group (lane / 4) and its place in it (lane % 4).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "handlers.hpp"
#include "numbers.hpp"

namespace ptx {
namespace {

constexpr unsigned ROWS = 16, COLUMNS = 8;

// The rows and columns of a lane's four sums, of [ROWS, COLUMNS].
unsigned sum_row(unsigned lane, unsigned reg) { return lane / 4 + reg / 2 * 8; }
unsigned sum_column(unsigned lane, unsigned reg) { return lane % 4 * 2 + reg % 2; }

// Factors of one product: a register holds 4 / sizeof(Raw) neighbours along the inner dimension,
// and the upper half of the inner dimension is in the later registers.
template <typename Raw>
struct Factors {
    static constexpr unsigned packed = 4 / sizeof(Raw), inner = 8 * packed;
    Raw a[ROWS][inner], b[COLUMNS][inner];

    Factors(const Warp& warp, const Instruction& i) {
        for (unsigned lane = 0; lane < LANES; ++lane) {
            for (unsigned reg = 0; reg < 4; ++reg) {
                const auto at = lane % 4 * packed + reg / 2 * (inner / 2);
                put(warp.get(i.operands[1][reg], lane), &a[lane / 4 + reg % 2 * 8][at]);
            }
            for (unsigned reg = 0; reg < 2; ++reg) {
                const auto at = lane % 4 * packed + reg * (inner / 2);
                put(warp.get(i.operands[2][reg], lane), &b[lane / 4][at]);
            }
        }
    }

    static void put(Bits bits, Raw* into) {
        const auto narrow = static_cast<std::uint32_t>(bits);
        std::memcpy(into, &narrow, sizeof narrow);
    }
};

float cut_to_float(double value) {
    const auto near = static_cast<float>(value);
    return std::fabs(double(near)) > std::fabs(value) ? std::nextafterf(near, 0.0f) : near;
}

// The exponent of a number that is not zero; of those below the normal ones, the smallest.
int exponent_of(double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return std::max(static_cast<int>(bits >> 52 & 0x7ff), 1) - 1023;
}

double power_of_two(int exponent) {
    const auto bits = static_cast<std::uint64_t>(exponent + 1023) << 52;
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// A model of tensor cores: eight products and the sum so far are aligned to the largest of them and
// cut off behind 25 bits, and so is the result behind 24.
double cut_sum(const double* products, double start) {
    double largest = std::fabs(start);
    for (unsigned k = 0; k < 8; ++k) largest = std::max(largest, std::fabs(products[k]));
    if (largest == 0 || !std::isfinite(largest)) {
        for (unsigned k = 0; k < 8; ++k) start += products[k];
        return start;
    }
    // Products of floats are far from the ends of a double's range.
    const int last = exponent_of(largest) - 24;
    const double scale = power_of_two(-last);
    auto sum = static_cast<std::int64_t>(start * scale);
    for (unsigned k = 0; k < 8; ++k) sum += static_cast<std::int64_t>(products[k] * scale);
    return cut_to_float(static_cast<double>(sum) * power_of_two(last));
}

// Sixteen products and the sum so far, in double: exact but for the last of its bits. In four
// chains, which the host adds side by side.
double exact_sum(const double* products, double start) {
    double sums[4] = {start, 0, 0, 0};
    for (unsigned k = 0; k < 16; k += 4) {
        for (unsigned chain = 0; chain < 4; ++chain) sums[chain] += products[k + chain];
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

float half_from_table(std::uint16_t bits) {
    static const auto table = [] {
        std::vector<float> values(1 << 16);
        for (unsigned at = 0; at < values.size(); ++at)
            values[at] = half_to_float(std::uint16_t(at));
        return values;
    }();
    return table[bits];
}

template <float (*convert)(std::uint16_t)>
void multiply(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    if (!warp.all_lanes(i, lanes)) return;
    warp.need(i, 1, lanes);
    using Half = Factors<std::uint16_t>;
    const Half raw(warp, i);
    double a[ROWS][Half::inner], b[COLUMNS][Half::inner];
    const auto convert_all = [](const std::uint16_t* from, double* into, unsigned count) {
        for (unsigned at = 0; at < count; ++at) into[at] = convert(from[at]);
    };
    convert_all(raw.a[0], a[0], ROWS * Half::inner);
    convert_all(raw.b[0], b[0], COLUMNS * Half::inner);
    for (unsigned lane = 0; lane < LANES; ++lane) {
        for (unsigned reg = 0; reg < 4; ++reg) {
            const auto* row = a[sum_row(lane, reg)];
            const auto* column = b[sum_column(lane, reg)];
            double products[Half::inner];
            for (unsigned k = 0; k < Half::inner; ++k) products[k] = row[k] * column[k];
            const double start = as_float(warp.get(i.operands[3][reg], lane));
            const double sum = warp.launch.options.truncate
                                   ? cut_sum(products + 8, cut_sum(products, start))
                                   : exact_sum(products, start);
            warp.set(i.operands[0][reg], lane, of_float(static_cast<float>(sum)));
        }
    }
}

}  // namespace

void multiply_halves(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    multiply<half_from_table>(warp, i, lanes);
}

void multiply_bfloats(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    multiply<bfloat_to_float>(warp, i, lanes);
}

void multiply_bytes(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    if (!warp.all_lanes(i, lanes)) return;
    warp.need(i, 1, lanes);
    using Byte = Factors<std::int8_t>;
    using Limits = std::numeric_limits<std::int32_t>;
    const Byte factors(warp, i);
    for (unsigned lane = 0; lane < LANES; ++lane) {
        for (unsigned reg = 0; reg < 4; ++reg) {
            const auto* row = factors.a[sum_row(lane, reg)];
            const auto* column = factors.b[sum_column(lane, reg)];
            std::int64_t sum = static_cast<std::int32_t>(warp.get(i.operands[3][reg], lane));
            for (unsigned k = 0; k < Byte::inner; ++k) sum += row[k] * column[k];
            sum = std::clamp<std::int64_t>(sum, Limits::min(), Limits::max());  // satfinite
            warp.set(i.operands[0][reg], lane, static_cast<std::uint32_t>(sum));
        }
    }
}

// Lanes 8m to 8m + 7 have the addresses of the eight rows of matrix m, 16 bytes each. A lane holds
// two neighbours of row lane / 4; transposed, two neighbours of column lane / 4.
namespace {

struct Matrix {
    std::uint16_t rows[8][8];

    std::uint16_t& at(unsigned lane, unsigned half, bool transposed) {
        const unsigned group = lane / 4, place = lane % 4 * 2 + half;
        return transposed ? rows[place][group] : rows[group][place];
    }
};

}  // namespace

void load_matrix(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    if (!warp.all_lanes(i, lanes)) return;
    warp.need(i, 1, lanes);
    for (unsigned index = 0; index < i.operands[0].size(); ++index) {
        Matrix matrix;
        for (unsigned row = 0; row < 8; ++row) {
            const unsigned lane = index * 8 + row;
            const auto address = static_cast<std::uint32_t>(warp.get(i, 1, lane));
            std::uint8_t bytes[16];
            warp.cta.shared.read(
                address, 16, bytes, warp.access(i, lane), warp.now(), warp.launch.reports
            );
            std::memcpy(matrix.rows[row], bytes, 16);
        }
        for (unsigned lane = 0; lane < LANES; ++lane) {
            const Bits low = matrix.at(lane, 0, i.transposed),
                       high = matrix.at(lane, 1, i.transposed);
            warp.set(i.operands[0][index], lane, high << 16 | low);
        }
    }
}

void store_matrix(Warp& warp, const Instruction& i, std::uint32_t lanes) {
    if (!warp.all_lanes(i, lanes)) return;
    warp.need(i, 0, lanes);
    for (unsigned index = 0; index < i.operands[1].size(); ++index) {
        Matrix matrix;
        for (unsigned lane = 0; lane < LANES; ++lane) {
            const Bits value = warp.get(i.operands[1][index], lane);
            matrix.at(lane, 0, i.transposed) = static_cast<std::uint16_t>(value);
            matrix.at(lane, 1, i.transposed) = static_cast<std::uint16_t>(value >> 16);
        }
        for (unsigned row = 0; row < 8; ++row) {
            const unsigned lane = index * 8 + row;
            const auto address = static_cast<std::uint32_t>(warp.get(i, 0, lane));
            std::uint8_t bytes[16];
            std::memcpy(bytes, matrix.rows[row], 16);
            warp.cta.shared.write(
                address, 16, bytes, warp.access(i, lane), warp.now(), warp.launch.reports
            );
        }
    }
}

}  // namespace ptx
