#include "json.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "engine.h"

namespace edge {
namespace {

class Reader {
 public:
  explicit Reader(const std::string& text) : text_(text) {}

  Object object() {
    Object found;
    expect('{');
    if (!take('}')) {
      do {
        const std::string key = string();
        expect(':');
        found[key] = value();
      } while (take(','));
      expect('}');
    }
    space();
    if (at_ != text_.size()) fail();
    return found;
  }

 private:
  std::string value() {
    if (peek() == '[') {
      std::string joined;
      expect('[');
      if (take(']')) return joined;
      do {
        if (!joined.empty()) joined += '\n';
        joined += scalar();
      } while (take(','));
      expect(']');
      return joined;
    }
    return scalar();
  }

  std::string scalar() {
    if (peek() == '"') return string();
    std::string word;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '-' ||
                                  text_[at_] == '+' || text_[at_] == '.')) {
      word += text_[at_++];
    }
    if (word.empty()) fail();
    return word == "null" ? "" : word;
  }

  std::string string() {
    expect('"');
    std::string found;
    while (at_ < text_.size() && text_[at_] != '"') {
      char c = text_[at_++];
      if (c == '\\') {
        if (at_ == text_.size()) fail();
        c = text_[at_++];
        if (c == 'u') {
          append_utf8(found, unicode());
          continue;
        }
        if (c == 'n') c = '\n';
        if (c == 't') c = '\t';
        if (c == 'r') c = '\r';
        if (c == 'b') c = '\b';
        if (c == 'f') c = '\f';
      }
      found += c;
    }
    expect('"', false);
    return found;
  }

  unsigned unicode() {
    unsigned code = hex4();
    if (code >= 0xD800 && code < 0xDC00 && text_.compare(at_, 2, "\\u") == 0) {  // half of a pair
      at_ += 2;
      code = 0x10000 + ((code - 0xD800) << 10) + (hex4() - 0xDC00);
    }
    return code;
  }

  unsigned hex4() {
    if (at_ + 4 > text_.size()) fail();
    const unsigned code = static_cast<unsigned>(std::strtoul(text_.substr(at_, 4).c_str(), nullptr, 16));
    at_ += 4;
    return code;
  }

  static void append_utf8(std::string& to, unsigned code) {
    if (code < 0x80) {
      to += static_cast<char>(code);
    } else if (code < 0x800) {
      to += static_cast<char>(0xC0 | (code >> 6));
      to += static_cast<char>(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      to += static_cast<char>(0xE0 | (code >> 12));
      to += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      to += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      to += static_cast<char>(0xF0 | (code >> 18));
      to += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
      to += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      to += static_cast<char>(0x80 | (code & 0x3F));
    }
  }

  void space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  char peek() {
    space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted, bool skip_space = true) {
    if (skip_space) space();
    if (at_ >= text_.size() || text_[at_] != wanted) fail();
    ++at_;
  }
  [[noreturn]] void fail() const { throw BadInput("runner: a request that is no flat JSON object: " + text_); }

  const std::string& text_;
  size_t at_ = 0;
};

}  // namespace

Object parse_object(const std::string& line) { return Reader(line).object(); }

std::string quoted(const std::string& text) {
  std::string found = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      found += '\\';
      found += c;
    } else if (code < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", code);
      found += escape;
    } else {
      found += c;
    }
  }
  return found + '"';
}

std::string list_of(const std::vector<double>& values) {
  std::string found = "[";
  char number[32];
  for (const double value : values) {
    std::snprintf(number, sizeof number, "%.10g", value);
    if (found.size() > 1) found += ',';
    found += number;
  }
  return found + "]";
}

}  // namespace edge
