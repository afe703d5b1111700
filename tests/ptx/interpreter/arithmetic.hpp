// Instructions whose result follows from their inputs alone, as one table.
#pragma once

#include <string>
#include <unordered_map>

#include "program.hpp"

namespace ptx {

struct Operation {
    int inputs = 0;
    Function apply = nullptr;
};

using Table = std::unordered_map<std::string, Operation>;

void add_whole_numbers(Table&);
void add_floats(Table&);

}  // namespace ptx
