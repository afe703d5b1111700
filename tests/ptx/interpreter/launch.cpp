// Runs a launch: one CTA after the other, warps whole between barriers. And the door for ctypes.
#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>

#include "warp.hpp"

namespace ptx {
namespace {

using Warps = std::vector<Warp>;

std::vector<unsigned> order_of(std::size_t warps, const Options& options, std::mt19937& random) {
    std::vector<unsigned> order(warps);
    std::iota(order.begin(), order.end(), 0u);
    if (options.order == 1) std::reverse(order.begin(), order.end());
    if (options.order == 2) std::shuffle(order.begin(), order.end(), random);
    return order;
}

// Let the warps pass if all have arrived; false when none is left.
bool pass_barrier(Launch& launch, Cta& cta, Warps& warps) {
    std::vector<Warp*> waiting;
    for (auto& warp : warps) {
        if (warp.state() == Warp::State::at_barrier) waiting.push_back(&warp);
    }
    if (waiting.empty()) return false;
    const int line = waiting.front()->barrier_line();
    const auto report = [&](const char* kind) {
        launch.reports.add(kind, line, [&] {
            return "CTA " + cta.name + ": " + std::to_string(waiting.size()) + " of " +
                   std::to_string(warps.size()) + " warps wait";
        });
    };
    if (waiting.size() != warps.size()) report("barrier that not all warps reach");
    for (auto* warp : waiting) {
        if (warp->barrier_line() != line) report("warps at different barriers");
        warp->pass_barrier();
    }
    ++cta.interval;
    ++launch.barriers;
    return true;
}

void run_cta(Launch& launch, std::array<std::uint32_t, 3> index, std::mt19937& random) {
    std::string name = "(";
    for (const auto part : index) name += (name.size() > 1 ? ", " : "") + std::to_string(part);
    Cta cta{index, name + ")", SharedMemory(launch.shared_bytes)};
    Warps warps;
    const unsigned count = launch.program.threads / LANES;
    warps.reserve(count);
    for (unsigned warp = 0; warp < count; ++warp) warps.emplace_back(launch, cta, warp);
    do {
        for (const auto warp : order_of(count, launch.options, random)) warps[warp].run();
    } while (pass_barrier(launch, cta, warps));
}

void run(Launch& launch) {
    std::mt19937 random(launch.options.seed);
    for (std::uint32_t z = 0; z < launch.grid[2]; ++z) {
        for (std::uint32_t y = 0; y < launch.grid[1]; ++y) {
            for (std::uint32_t x = 0; x < launch.grid[0]; ++x) run_cta(launch, {x, y, z}, random);
        }
    }
}

void put(const std::string& text, char* into, std::size_t size) {
    const auto count = std::min(text.size(), size - 1);
    std::copy_n(text.begin(), count, into);
    into[count] = '\0';
}

}  // namespace
}  // namespace ptx

extern "C" {

// Returns null, and an error in the text, where PTX is not understood.
ptx::Program* ptx_parse(const char* text, char* error, std::size_t size) {
    try {
        return new ptx::Program(ptx::parse(text));
    } catch (const std::exception& problem) {
        ptx::put(problem.what(), error, size);
        return nullptr;
    }
}

void ptx_free(ptx::Program* program) { delete program; }

unsigned ptx_parameters(const ptx::Program* program) {
    return static_cast<unsigned>(program->parameters.size());
}

// Writes counts into the first line, and then a line per report: "kind <tab> PTX line <tab> count
// <tab> detail".
void ptx_run(
    const ptx::Program* program, const std::uint32_t* grid, std::uint32_t shared_bytes,
    const std::uint64_t* parameters, const ptx::View* views, std::size_t view_count,
    const ptx::Options* options, char* text, std::size_t size
) {
    ptx::Launch launch{
        *program,
        ptx::GlobalMemory(views, view_count),
        std::vector<ptx::Bits>(parameters, parameters + program->parameters.size()),
        {grid[0], grid[1], grid[2]},
        shared_bytes,
        *options,
        {},
    };
    ptx::run(launch);
    std::string lines = std::to_string(launch.steps) + "\t" + std::to_string(launch.barriers);
    for (const auto& [key, report] : launch.reports.entries()) {
        lines += "\n" + key.first + "\t" + std::to_string(key.second) + "\t" +
                 std::to_string(report.count) + "\t" + report.first;
    }
    ptx::put(lines, text, size);
}

}  // extern "C"
