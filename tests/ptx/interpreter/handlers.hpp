// The handlers that are kept in files of their own.
#pragma once

#include "warp.hpp"

namespace ptx {

void load_global(Warp&, const Instruction&, std::uint32_t lanes);
void store_global(Warp&, const Instruction&, std::uint32_t lanes);
void load_shared(Warp&, const Instruction&, std::uint32_t lanes);
void store_shared(Warp&, const Instruction&, std::uint32_t lanes);
void load_parameter(Warp&, const Instruction&, std::uint32_t lanes);
void copy_async(Warp&, const Instruction&, std::uint32_t lanes);
void commit_copies(Warp&, const Instruction&, std::uint32_t lanes);
void wait_for_copies(Warp&, const Instruction&, std::uint32_t lanes);

void load_matrix(Warp&, const Instruction&, std::uint32_t lanes);
void store_matrix(Warp&, const Instruction&, std::uint32_t lanes);
void multiply_halves(Warp&, const Instruction&, std::uint32_t lanes);
void multiply_bfloats(Warp&, const Instruction&, std::uint32_t lanes);
void multiply_bytes(Warp&, const Instruction&, std::uint32_t lanes);

}  // namespace ptx
