// The runner: one JSON request a line on standard input, one answer a line on standard output.
//
//   {"do":"load", "model":PATH, "data":PATH, "signature":NAME, "threads":N, "kernels":SET, "inputs":[..],
//    "outputs":[..], "shapes":["1x3x8x8", ..]}
//   {"do":"inputs", "file":PATH, "sets":N}     values to cycle through: N times all inputs, one after the other
//   {"do":"warm", "rounds":N, "runs":N, "min_seconds":S, "most_seconds":S}
//   {"do":"measure", "values_per_round":N, "calls_per_value":N}
//   {"do":"infer", "file":PATH, "outputs_file":PATH, "sets":N}
//   {"do":"state"}
//   {"do":"conditions", "window_s":S}
//   {"do":"pin", "cpus":[N, ..]}               before load: threads that a runtime starts later inherit it
//
// Answers are {"value":..}, {"error":..} for what the caller can mend, or {"failure":..}: those of the Python worker.

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <thread>

#include "engine.h"
#include "json.h"
#include "machine.h"

namespace edge {
namespace {

constexpr size_t kBlockRuns = 5;
constexpr double kBlockSeconds = 0.005;
constexpr size_t kMostRunsPerRound = 1000;
constexpr double kSteadyWithin = 0.05;
constexpr double kClockStepsPerValue = 100;
constexpr int kRunsBeforeATurn = 2;
constexpr size_t kRunsUnderWatch = 3;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// The smallest step of the clock that was seen.
double clock_step_s() {
  double least = 1.0;
  for (int i = 0; i < 1000; ++i) {
    const double begin = now_s();
    double end = begin;
    while (end == begin) end = now_s();
    least = std::min(least, end - begin);
  }
  return least;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> found;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) found.push_back(line);
  return found;
}

std::vector<int64_t> shape_of(const std::string& text) {
  std::vector<int64_t> shape;
  std::istringstream stream(text);
  for (std::string size; std::getline(stream, size, 'x');) shape.push_back(std::atoll(size.c_str()));
  return shape;
}

std::string tensors_json(const std::vector<Tensor>& tensors) {
  std::string text = "[";
  for (const Tensor& tensor : tensors) {
    if (text.size() > 1) text += ',';
    text += "{\"name\":" + quoted(tensor.name) + ",\"type\":" + quoted(tensor.type) + ",\"shape\":" +
            list_of(std::vector<double>(tensor.shape.begin(), tensor.shape.end())) +
            ",\"bytes\":" + std::to_string(tensor.bytes) + "}";
  }
  return text + "]";
}

class Runner {
 public:
  std::string answer(const Object& request) {
    const std::string asked = text(request, "do");
    if (asked == "load") return load(request);
    if (asked == "inputs") return inputs(request);
    if (asked == "warm") return warm(request);
    if (asked == "measure") return measure(request);
    if (asked == "infer") return infer(request);
    if (asked == "state") return state();
    if (asked == "pin") return pin(request);
    if (asked == "conditions") return conditions(request);
    throw BadInput("worker request '" + asked + "': must be one of load, inputs, warm, measure, infer, state, pin, conditions.");
  }

 private:
  static std::string text(const Object& request, const std::string& key, const std::string& absent = "") {
    const auto found = request.find(key);
    return found == request.end() ? absent : found->second;
  }
  static double number(const Object& request, const std::string& key, double absent) {
    const auto found = request.find(key);
    return found == request.end() ? absent : std::atof(found->second.c_str());
  }

  std::string load(const Object& request) {
    LoadRequest wish;
    wish.model = text(request, "model");
    wish.data = text(request, "data");
    wish.signature = text(request, "signature");
    wish.kernels = text(request, "kernels", "default");
    wish.threads = static_cast<int>(number(request, "threads", 1));
    wish.inputs = lines_of(text(request, "inputs"));
    wish.outputs = lines_of(text(request, "outputs"));
    for (const std::string& shape : lines_of(text(request, "shapes"))) wish.shapes.push_back(shape_of(shape));
    if (wish.threads < 1) throw BadInput("threads = " + std::to_string(wish.threads) + ": must be at least 1.");
    if (!std::ifstream(wish.model)) throw BadInput(wish.model + ": cannot be read on the device.");
    engine_.reset();
    const Memory base = read_memory();
    MemoryWatch watch;
    const double begin = now_s();
    std::unique_ptr<Engine> engine = make_engine();
    engine->load(wish);
    const double load_s = now_s() - begin;
    const Memory peak = watch.end();
    engine_ = std::move(engine);
    set_bytes_ = 0;
    for (const Tensor& tensor : engine_->inputs()) set_bytes_ += tensor.bytes;
    sets_.assign(set_bytes_, 0);
    std::ostringstream found;
    found.precision(10);
    found << "{\"load_s\":" << load_s << ",\"base_rss_bytes\":" << base.peak_bytes
          << ",\"memory_base\":" << kinds_json(base) << ",\"memory_peak\":" << kinds_json(peak)
          << ",\"signature\":" << quoted(engine_->signature()) << ",\"inputs\":" << tensors_json(engine_->inputs())
          << ",\"outputs\":" << tensors_json(engine_->outputs()) << ",\"load_average\":" << list_of(load_average())
          << ",\"machine\":" << machine_json() << "}";
    return found.str();
  }

  std::string inputs(const Object& request) {
    loaded();
    const auto count = std::max<size_t>(1, static_cast<size_t>(number(request, "sets", 1)));
    sets_ = read_file(text(request, "file"), count * set_bytes_);
    return "{\"sets\":" + std::to_string(count) + "}";
  }

  std::string warm(const Object& request) {
    loaded();
    const double most_s = number(request, "most_seconds", 5);
    std::vector<double> values;
    double previous = -1;
    bool steady = false;
    const double begin = now_s();
    while (true) {
      std::vector<double> block;
      double sum = 0;
      while (block.size() < kBlockRuns || (sum < kBlockSeconds && block.size() < kMostRunsPerRound)) {
        const double start = now_s();
        run(values.size() + block.size());
        block.push_back(now_s() - start);
        sum += block.back();
      }
      values.insert(values.end(), block.begin(), block.end());
      const double middle = median(block);
      steady = previous >= 0 && std::abs(middle - previous) <= kSteadyWithin * previous;
      if (steady || now_s() - begin >= most_s) break;
      previous = middle;
    }
    const size_t last = std::min<size_t>(kBlockRuns, values.size());
    const double run_s = std::max(median({values.end() - static_cast<long>(last), values.end()}), 1e-9);
    const double rounds = std::max(1.0, number(request, "rounds", 1));
    const double calls = std::max(1.0, std::ceil(kClockStepsPerValue * clock_step_s() / run_s));
    const double for_count = std::ceil(number(request, "runs", 1) / rounds);
    const double for_time = std::min<double>(std::ceil(number(request, "min_seconds", 0) / rounds / (run_s * calls)),
                                             static_cast<double>(kMostRunsPerRound));
    std::ostringstream found;
    found << "{\"values_s\":" << list_of(values) << ",\"steady\":" << (steady ? "true" : "false")
          << ",\"values_per_round\":" << static_cast<long>(std::max({1.0, for_count, for_time}))
          << ",\"calls_per_value\":" << static_cast<long>(calls) << "}";
    return found.str();
  }

  std::string measure(const Object& request) {
    loaded();
    const auto count = static_cast<size_t>(number(request, "values_per_round", 1));
    const auto calls = static_cast<size_t>(std::max(1.0, number(request, "calls_per_value", 1)));
    for (int i = 0; i < kRunsBeforeATurn; ++i) run(static_cast<size_t>(i));
    std::vector<double> values;
    values.reserve(count);
    size_t place = 0;
    for (size_t i = 0; i < count; ++i) {
      const double start = now_s();
      for (size_t k = 0; k < calls; ++k) run(place++);
      values.push_back((now_s() - start) / static_cast<double>(calls));
    }
    return "{\"values_s\":" + list_of(values) + "}";
  }

  std::string infer(const Object& request) {
    loaded();
    const auto count = static_cast<size_t>(number(request, "sets", 1));
    const std::vector<unsigned char> given = read_file(text(request, "file"), count * set_bytes_);
    const std::string path = text(request, "outputs_file");
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    for (size_t i = 0; i < count; ++i) {
      run(i, given);
      file.write(reinterpret_cast<const char*>(out_.data()), static_cast<std::streamsize>(out_.size()));
    }
    file.close();
    if (!file) throw BadInput(path + ": cannot be written on the device; is its storage full?");
    return "{\"sets\":" + std::to_string(count) + ",\"bytes\":" + std::to_string(count * out_.size()) + "}";
  }

  std::string state() {
    std::string kinds = "null";
    if (engine_) {
      MemoryWatch watch;
      for (size_t i = 0; i < kRunsUnderWatch; ++i) run(i);
      kinds = kinds_json(watch.end());
    }
    return "{\"peak_rss_bytes\":" + std::to_string(read_memory().peak_bytes) + ",\"memory_peak\":" + kinds +
           ",\"load_average\":" + list_of(load_average()) + "}";
  }

  std::string pin(const Object& request) {
    cpu_set_t set;
    CPU_ZERO(&set);
    std::vector<double> cpus;
    for (const std::string& cpu : lines_of(text(request, "cpus"))) {
      cpus.push_back(std::atoi(cpu.c_str()));
      CPU_SET(static_cast<size_t>(cpus.back()), &set);
    }
    if (cpus.empty() || sched_setaffinity(0, sizeof set, &set) != 0) {
      throw BadInput("cpus " + list_of(cpus) + ": this device does not bind a process to them.");
    }
    return "{\"cpus\":" + list_of(cpus) + "}";
  }

  std::string conditions(const Object& request) {
    return "{\"state\":" + conditions_json(number(request, "window_s", 0.2)) +
           ",\"cores\":" + std::to_string(std::thread::hardware_concurrency()) + "}";
  }

  // Inputs in, one inference, outputs out: all that a caller waits for.
  void run(size_t index) { run(index, sets_); }

  void run(size_t index, const std::vector<unsigned char>& sets) {
    const size_t have = set_bytes_ ? std::max<size_t>(1, sets.size() / set_bytes_) : 1;
    const unsigned char* at = sets.data() + (index % have) * set_bytes_;
    const std::vector<Tensor>& tensors = engine_->inputs();
    for (size_t i = 0; i < tensors.size(); ++i) {
      engine_->set_input(i, at);
      at += tensors[i].bytes;
    }
    engine_->run();
    out_.clear();
    for (size_t i = 0; i < engine_->outputs().size(); ++i) engine_->get_output(i, out_);
  }

  void loaded() const {
    if (!engine_) throw BadInput("worker: nothing is loaded yet.");
  }

  static std::vector<unsigned char> read_file(const std::string& path, size_t bytes) {
    std::ifstream file(path, std::ios::binary);
    std::vector<unsigned char> found(bytes);
    file.read(reinterpret_cast<char*>(found.data()), static_cast<std::streamsize>(bytes));
    if (static_cast<size_t>(file.gcount()) != bytes) {
      throw BadInput(path + ": holds fewer than " + std::to_string(bytes) + " bytes of input values.");
    }
    return found;
  }

  std::unique_ptr<Engine> engine_;
  std::vector<unsigned char> sets_, out_;
  size_t set_bytes_ = 0;
};

}  // namespace
}  // namespace edge

int main() {
  // What libraries print must not stand between answers.
  std::FILE* answers = fdopen(dup(1), "w");
  dup2(2, 1);
  edge::Runner runner;
  for (std::string line; std::getline(std::cin, line);) {
    std::string answer;
    try {
      answer = "{\"value\":" + runner.answer(edge::parse_object(line)) + "}";
    } catch (const edge::BadInput& error) {
      answer = "{\"error\":{\"class\":\"BadInput\",\"problems\":[" + edge::quoted(error.what()) + "],\"refusals\":[]}}";
    } catch (const std::exception& error) {
      answer = "{\"failure\":" + edge::quoted(error.what()) + "}";
    }
    std::fprintf(answers, "%s\n", answer.c_str());
    std::fflush(answers);
  }
  std::fclose(answers);
  // Runtimes tear their threads down in an order of their own; nothing is left to save.
  _exit(0);
}
