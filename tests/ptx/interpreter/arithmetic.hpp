// Which function an arithmetic instruction is.
#pragma once

#include <string>

#include "program.hpp"

namespace ptx {

struct Operation {
    int inputs = 0;
    Function apply = nullptr;
};

// Return the operation of an opcode, or null.
const Operation* operation_for(const std::string& opcode);

}  // namespace ptx
