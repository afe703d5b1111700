// What went wrong, and where: one entry per kind and PTX line, with a count.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace ptx {

struct Report {
    std::uint64_t count = 0;
    std::string first;  // where it was first seen, and the numbers
};

class Reports {
public:
    // Kinds that begin with "note" are no errors.
    // Detail is a function: it is called for the first one only.
    template <typename Detail>
    void add(const char* kind, int line, Detail detail) {
        auto& report = entries_[{kind, line}];
        if (report.count++ == 0) report.first = detail();
    }

    const std::map<std::pair<std::string, int>, Report>& entries() const { return entries_; }

private:
    std::map<std::pair<std::string, int>, Report> entries_;
};

}  // namespace ptx
