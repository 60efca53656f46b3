// What a runner needs of a runtime: load a model, take values in, run, hand values out.
#ifndef EDGE_DEPLOY_ENGINE_H
#define EDGE_DEPLOY_ENGINE_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace edge {

// The caller gave something that the model or the runtime does not take.
class BadInput : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One value at the model's border; `name` is empty where the format has none.
struct Tensor {
  std::string name;
  std::string type;
  std::vector<int64_t> shape;
  size_t bytes = 0;
};

struct LoadRequest {
  std::string model;
  std::string data;       // weights beside the model; empty where there are none
  std::string signature;  // empty for the first
  std::string kernels;    // default, builtin or reference
  int threads = 1;
  std::vector<std::vector<int64_t>> shapes;  // one for each input, in `names`' order; empty takes the model's own
  std::vector<std::string> inputs;           // names in the order of the caller; empty takes the model's own
  std::vector<std::string> outputs;
};

class Engine {
 public:
  virtual ~Engine() = default;
  // Throws BadInput.
  virtual void load(const LoadRequest& request) = 0;
  virtual const std::vector<Tensor>& inputs() const = 0;
  virtual const std::vector<Tensor>& outputs() const = 0;
  virtual const std::string& signature() const = 0;
  // `data` has inputs()[index].bytes bytes.
  virtual void set_input(size_t index, const unsigned char* data) = 0;
  virtual void run() = 0;
  // Appends the bytes of an output.
  virtual void get_output(size_t index, std::vector<unsigned char>& into) = 0;
};

// Defined by the one engine that is linked.
std::unique_ptr<Engine> make_engine();

}  // namespace edge

#endif
