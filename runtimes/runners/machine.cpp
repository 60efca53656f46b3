#include "machine.h"

#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "json.h"

namespace edge {
namespace {

// Bytes behind "Key:  123 kB".
long long kilobytes(const std::string& line) { return std::atoll(line.c_str() + line.find(':') + 1) * 1024; }

bool starts(const std::string& line, const char* key) { return line.rfind(key, 0) == 0; }

std::string first_processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string line, text;
  bool begun = false;
  while (std::getline(file, line)) {
    if (line.empty()) {
      if (begun) break;
      continue;
    }
    begun = true;
    text += line + "\n";
  }
  return text;
}

long long ram_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    if (starts(line, "MemTotal:")) return kilobytes(line);
  }
  return 0;
}

}  // namespace

Memory read_memory() {
  Memory found;
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line)) {
    if (starts(line, "VmHWM:")) found.peak_bytes = kilobytes(line);
    if (starts(line, "RssFile:")) found.mapped_bytes = kilobytes(line);
    if (starts(line, "RssShmem:")) found.shared_bytes = kilobytes(line);
    if (starts(line, "RssAnon:")) {
      found.anonymous_bytes = kilobytes(line);
      found.is_known = true;
    }
  }
  return found;
}

std::string kinds_json(const Memory& memory) {
  if (!memory.is_known) return "null";
  return "{\"anonymous_bytes\":" + std::to_string(memory.anonymous_bytes) +
         ",\"mapped_bytes\":" + std::to_string(memory.mapped_bytes) +
         ",\"shared_bytes\":" + std::to_string(memory.shared_bytes) + "}";
}

struct MemoryWatch::Shared {
  std::atomic<bool> is_over{false};
  Memory peak;
  std::thread thread;

  void look() {
    const Memory now = read_memory();
    peak.is_known = now.is_known;
    peak.peak_bytes = std::max(peak.peak_bytes, now.peak_bytes);
    peak.anonymous_bytes = std::max(peak.anonymous_bytes, now.anonymous_bytes);
    peak.mapped_bytes = std::max(peak.mapped_bytes, now.mapped_bytes);
    peak.shared_bytes = std::max(peak.shared_bytes, now.shared_bytes);
  }
};

MemoryWatch::MemoryWatch() : shared_(new Shared) {
  Shared* shared = shared_.get();
  shared->thread = std::thread([shared] {
    while (!shared->is_over) {
      shared->look();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
}

MemoryWatch::~MemoryWatch() { end(); }

Memory MemoryWatch::end() {
  if (shared_->thread.joinable()) {
    shared_->is_over = true;
    shared_->thread.join();
    shared_->look();
  }
  return shared_->peak;
}

std::vector<double> load_average() {
  double values[3];
  const int count = getloadavg(values, 3);
  return {values, values + (count > 0 ? count : 0)};
}

std::string machine_json() {
  utsname system{};
  uname(&system);
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::string governor;
  std::ifstream("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") >> governor;
  std::ostringstream text;
  text << "{\"cpuinfo\":" << quoted(first_processor()) << ",\"isa\":" << quoted(system.machine)
       << ",\"cores\":" << cores << ",\"ram_bytes\":" << ram_bytes() << ",\"governor\":" << quoted(governor)
       << ",\"kernel\":" << quoted(std::string(system.sysname) + " " + system.release) << "}";
  return text.str();
}

}  // namespace edge
