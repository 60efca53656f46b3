// What the device says of itself and of this process, read from /proc; what cannot be read is empty or 0.
#ifndef EDGE_DEPLOY_MACHINE_H
#define EDGE_DEPLOY_MACHINE_H

#include <memory>
#include <string>
#include <vector>

namespace edge {

struct Memory {
  long long peak_bytes = 0;       // VmHWM: the most of all kinds at once, since the process began
  long long anonymous_bytes = 0;  // heap and stacks
  long long mapped_bytes = 0;     // pages of files, such as tables read in place and libraries
  long long shared_bytes = 0;
  bool is_known = false;  // false where the system does not tell the kinds apart
};

// What is resident now.
Memory read_memory();

// A JSON object of the kinds, or null.
std::string kinds_json(const Memory& memory);

// The system keeps the peak of the sum only: a thread looks at the kinds about a thousand times a second meanwhile.
class MemoryWatch {
 public:
  MemoryWatch();
  ~MemoryWatch();
  // Ends the watch; the largest value of each kind.
  Memory end();

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

std::vector<double> load_average();

// A JSON object of what the machine does meanwhile: busy_cores, temperature_c, clock_hz, throttled; null where it does not
// tell. This process sleeps for the window, so that what is busy are others.
std::string conditions_json(double window_s);

// A JSON object: the first processor's lines of /proc/cpuinfo, isa, cores, ram_bytes, governor, kernel.
std::string machine_json();

}  // namespace edge

#endif
