// Weights stored two to a byte (see runtimes/formats/nibble_ptd.py) as the .ptd that ExecuTorch takes. Standard C++17.
#ifndef EDGE_DEPLOY_PACKED_WEIGHTS_H
#define EDGE_DEPLOY_PACKED_WEIGHTS_H

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace edge {

constexpr unsigned char kPackedMagic[8] = {'E', 'D', 'N', 'I', 'B', '4', 0, 1};

inline bool is_packed(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  unsigned char head[sizeof kPackedMagic] = {};
  file.read(reinterpret_cast<char*>(head), sizeof head);
  return file.gcount() == sizeof head && std::memcmp(head, kPackedMagic, sizeof head) == 0;
}

// The inflated file. Throws std::runtime_error where the bytes are not a whole packed file.
inline std::vector<uint8_t> inflate(const std::vector<uint8_t>& packed) {
  const auto damaged = [] { return std::runtime_error("packed weights: the file is damaged, get it again."); };
  const auto number = [&](size_t at, int bytes) {
    if (at + static_cast<size_t>(bytes) > packed.size()) throw damaged();
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) value = value << 8 | packed[at + static_cast<size_t>(i)];
    return value;
  };
  constexpr size_t kHead = 24, kRegion = 24, kLargestGap = 4096;
  if (packed.size() < kHead || std::memcmp(packed.data(), kPackedMagic, sizeof kPackedMagic) != 0) throw damaged();
  const uint64_t total = number(8, 8), count = number(16, 4);
  if (count > packed.size() / kRegion || total > 2 * packed.size() + kLargestGap * (count + 1)) throw damaged();
  std::vector<uint8_t> plain(total, 0);
  size_t from = kHead + count * kRegion;
  uint64_t end = 0;
  for (uint64_t region = 0; region < count; ++region) {
    const size_t entry = kHead + region * kRegion;
    const uint64_t start = number(entry, 8), size = number(entry + 8, 8), bits = number(entry + 16, 4);
    if ((bits != 4 && bits != 8) || start < end || size > total || start > total - size) throw damaged();
    const uint64_t stored = bits == 8 ? size : (size + 1) / 2;
    if (stored > packed.size() || from > packed.size() - stored) throw damaged();
    for (uint64_t i = 0; i < size; ++i) {
      // Of two weights the one of even index stands in the upper half; each half is the weight + 8.
      const uint8_t byte = packed[from + (bits == 8 ? i : i / 2)];
      plain[start + i] = bits == 8 ? byte : static_cast<uint8_t>((i % 2 ? byte & 15 : byte >> 4) - 8);
    }
    from += stored;
    end = start + size;
  }
  if (from != packed.size()) throw damaged();
  return plain;
}

inline std::vector<uint8_t> read_inflated(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return inflate({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
}

}  // namespace edge

#endif
