// Reads the PTX that LLVM writes: one statement a line, one kernel a file.
#include <cctype>
#include <stdexcept>

#include "program.hpp"

namespace ptx {
namespace {

using Words = std::vector<std::string>;

std::string trimmed(const std::string& text) {
    const auto first = text.find_first_not_of(" \t\r");
    if (first == std::string::npos) return "";
    return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// Split at commas outside of braces and brackets.
Words split(const std::string& text) {
    Words parts(1);
    int depth = 0;
    for (const char c : text) {
        if (c == '{' || c == '[') ++depth;
        if (c == '}' || c == ']') --depth;
        if (c == ',' && depth == 0) {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    for (auto& part : parts) part = trimmed(part);
    return parts;
}

class Parser {
public:
    Program run(const std::string& text) {
        std::size_t start = 0;
        while (start < text.size() && !done_) {
            const auto stop = std::min(text.find('\n', start), text.size());
            ++line_;
            statement(text.substr(start, stop - start));
            start = stop + 1;
        }
        if (program_.instructions.empty()) fail("the text must hold a kernel, got none");
        if (program_.threads == 0) fail("the kernel must have a .reqntid of one dimension");
        for (auto& instruction : program_.instructions) link(instruction);
        return std::move(program_);
    }

private:
    Program program_;
    std::unordered_map<std::string, int> labels_;
    int line_ = 0, depth_ = 0;
    bool done_ = false;

    [[noreturn]] void fail(const std::string& what) const {
        throw std::runtime_error("PTX line " + std::to_string(line_) + ": " + what);
    }

    void statement(std::string text) {
        text = trimmed(text.substr(0, text.find("//")));
        if (text.empty()) return;
        if (text == "{" || text == "}") {
            depth_ += text == "{" ? 1 : -1;
            done_ = depth_ == 0;
        } else if (depth_ == 0) {
            header(text);
        } else if (text.back() == ':') {
            labels_[text.substr(0, text.size() - 1)] =
                static_cast<int>(program_.instructions.size());
        } else if (text[0] != '.') {
            instruction(text);
        }
    }

    void header(const std::string& text) {
        if (starts_with(text, ".reqntid")) {
            if (text.find(',') != std::string::npos) fail("only one dimension of threads is known");
            program_.threads = static_cast<unsigned>(std::stoul(text.substr(8)));
        }
        if (!starts_with(text, ".param")) return;
        const auto name = text.substr(text.find_last_of(" \t") + 1);
        const int index = static_cast<int>(program_.parameters.size());
        program_.parameters[name.substr(0, name.find(','))] = index;
    }

    void instruction(std::string text) {
        if (text.back() != ';') fail("a statement must end with its line, got '" + text + "'");
        text.pop_back();
        Instruction result;
        result.line = line_;
        if (text[0] == '@') {
            const auto space = text.find_first_of(" \t");
            result.guard_negated = text[1] == '!';
            const auto name = text.substr(result.guard_negated ? 2 : 1);
            result.guard = reg(name.substr(0, name.find_first_of(" \t")));
            text = trimmed(text.substr(space));
        }
        const auto space = std::min(text.find_first_of(" \t"), text.size());
        result.opcode = text.substr(0, space);
        const auto rest = trimmed(text.substr(space));
        if (starts_with(result.opcode, "bra")) {
            result.label = rest;
        } else if (!rest.empty()) {
            for (const auto& part : split(rest)) result.operands.push_back(group(part));
        }
        try {
            decode(result);
        } catch (const std::runtime_error& error) {
            fail(error.what());
        }
        program_.instructions.push_back(std::move(result));
    }

    std::vector<Operand> group(const std::string& text) {
        if (text[0] != '{') return {operand(text)};
        std::vector<Operand> result;
        for (const auto& part : split(text.substr(1, text.size() - 2))) {
            result.push_back(operand(part));
        }
        return result;
    }

    Operand operand(const std::string& text) {
        if (text[0] == '[') return address(text.substr(1, text.size() - 2));
        static const std::unordered_map<std::string, Special> specials = {
            {"%tid.x", Special::tid_x},       {"%laneid", Special::laneid},
            {"%ctaid.x", Special::ctaid_x},   {"%ctaid.y", Special::ctaid_y},
            {"%ctaid.z", Special::ctaid_z},   {"%nctaid.x", Special::nctaid_x},
            {"%nctaid.y", Special::nctaid_y}, {"%nctaid.z", Special::nctaid_z},
        };
        Operand result;
        if (const auto found = specials.find(text); found != specials.end()) {
            result.kind = Operand::Kind::special;
            result.special = found->second;
        } else if (text[0] == '%') {
            result.kind = Operand::Kind::reg;
            result.index = reg(text);
        } else if (text == "_") {
            result.kind = Operand::Kind::sink;
        } else {
            result.value = immediate(text);
        }
        return result;
    }

    Operand address(const std::string& text) {
        const auto sign = text.find_first_of("+-", 1);
        const auto base = trimmed(text.substr(0, sign));
        Operand result;
        if (const auto found = program_.parameters.find(base); found != program_.parameters.end()) {
            result.kind = Operand::Kind::parameter;
            result.index = found->second;
        } else {
            result = operand(base);
        }
        if (sign == std::string::npos) return result;
        const auto offset = immediate(trimmed(text.substr(sign + 1)));
        result.value += text[sign] == '-' ? Bits(0) - offset : offset;
        return result;
    }

    Bits immediate(const std::string& text) const {
        if (text == "global_smem") return SHARED_BASE;
        try {
            if (starts_with(text, "0f") || starts_with(text, "0d")) {
                return std::stoull(text.substr(2), nullptr, 16);
            }
            std::size_t read = 0;
            const bool negative = text[0] == '-';
            const Bits value = std::stoull(negative ? text.substr(1) : text, &read, 0);
            if (const auto rest = text.substr(read + negative); rest.empty() || rest == "U") {
                return negative ? Bits(0) - value : value;
            }
        } catch (const std::logic_error&) {
        }
        fail("an operand must be a register, a number or global_smem, got '" + text + "'");
    }

    int reg(const std::string& name) {
        const int next = static_cast<int>(program_.registers.size());
        return program_.registers.emplace(name, next).first->second;
    }

    void link(Instruction& instruction) {
        if (instruction.label.empty()) return;
        const auto found = labels_.find(instruction.label);
        line_ = instruction.line;
        if (found == labels_.end()) fail("no label '" + instruction.label + "'");
        instruction.target = found->second;
    }
};

}  // namespace

Program parse(const std::string& text) { return Parser().run(text); }

}  // namespace ptx
