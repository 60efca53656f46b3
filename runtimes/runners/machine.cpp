#include "machine.h"

#include <dirent.h>
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

// Busy and all clock ticks of all processors, and how many there are; none where /proc/stat is closed to us.
struct Ticks {
  double busy = 0, all = 0;
  int processors = 0;
};

Ticks read_ticks() {
  Ticks found;
  std::ifstream file("/proc/stat");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("cpu", 0) != 0 || line.size() < 4 || line[3] < '0' || line[3] > '9') continue;
    std::istringstream words(line);
    std::string name;
    words >> name;
    double value;
    for (int column = 0; column < 8 && words >> value; ++column) {
      found.all += value;
      if (column != 3 && column != 4) found.busy += value;  // idle, and waiting for disks
    }
    ++found.processors;
  }
  return found;
}

// The largest number in the files that lie in folders of this prefix; 0 where there is none below `most`.
double largest(const std::string& folder, const std::string& prefix, const std::string& file, double most) {
  double found = 0;
  DIR* opened = opendir(folder.c_str());
  while (opened != nullptr) {
    const dirent* entry = readdir(opened);
    if (entry == nullptr) break;
    if (std::string(entry->d_name).rfind(prefix, 0) != 0) continue;
    double value = 0;
    std::ifstream(folder + "/" + entry->d_name + "/" + file) >> value;
    if (value > found && value < most) found = value;
  }
  if (opened != nullptr) closedir(opened);
  return found;
}

std::string or_null(bool is_known, double value) {
  if (!is_known) return "null";
  std::ostringstream text;
  text.precision(12);
  text << value;
  return text.str();
}

constexpr double kHottest = 150e3;  // thousandths of a degree; above, a zone reports something else

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

std::string conditions_json(double window_s) {
  const Ticks before = read_ticks();
  std::this_thread::sleep_for(std::chrono::duration<double>(window_s));
  const Ticks after = read_ticks();
  const bool is_known = before.processors > 0 && after.all > before.all;
  const double share = is_known ? (after.busy - before.busy) / (after.all - before.all) : 0;
  const double heat = largest("/sys/class/thermal", "thermal_zone", "temp", kHottest);
  const double clock = largest("/sys/devices/system/cpu", "cpu", "cpufreq/scaling_cur_freq", 1e12);
  return "{\"busy_cores\":" + or_null(is_known, share * after.processors) +
         ",\"temperature_c\":" + or_null(heat > 0, heat / 1000) + ",\"clock_hz\":" + or_null(clock > 0, clock * 1000) +
         ",\"throttled\":null}";
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
