// Programs (.pte, with a .ptd beside them) by the ExecuTorch libraries of its wheel. Files are mapped, not read, so that
// a table costs the pages that are looked up and no more.
#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <cstdio>
#include <cstring>

#include "engine.h"
#include "packed_weights.h"

// The wheel has no header of its thread pool; XNNPACK runs on it.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace edge {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Tag;
using executorch::runtime::TensorInfo;

std::string code(Error error) {
  char text[32];
  std::snprintf(text, sizeof text, "error 0x%x", static_cast<unsigned>(error));
  return text;
}

std::string type_name(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Half: return "float16";
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Bool: return "bool";
    default: throw BadInput("tensor type " + std::to_string(static_cast<int>(type)) + ": unknown to the runner.");
  }
}

class ExecutorchEngine : public Engine {
 public:
  void load(const LoadRequest& request) override {
    if (request.kernels != "default") {
      throw BadInput("kernels = " + request.kernels + ": ExecuTorch has one kernel set; take default.");
    }
    where_ = request.model;
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(
        static_cast<uint32_t>(request.threads));
    const auto mapped = Module::LoadMode::Mmap;
    if (request.data.empty()) {
      module_ = std::make_unique<Module>(request.model, mapped);
    } else if (is_packed(request.data)) {
      load_inflated(request);
    } else {
      module_ = std::make_unique<Module>(request.model, request.data, mapped);
    }
    const auto names = module_->method_names();
    if (!names.ok()) throw BadInput(where_ + ": ExecuTorch cannot load it (" + code(names.error()) + ").");
    method_ = names->count(request.signature) ? request.signature : "forward";
    if (!names->count(method_)) throw BadInput(where_ + ": has no method " + request.signature + " and no forward.");
    const auto meta = module_->method_meta(method_);
    if (!meta.ok()) throw BadInput(where_ + ": method " + method_ + " cannot be read (" + code(meta.error()) + ").");
    for (size_t i = 0; i < meta->num_inputs(); ++i) add_input(*meta, i, request);
    // The runtime loads a method, and finds its weights missing, on the first call only.
    run();
    for (size_t i = 0; i < answer_.size(); ++i) {
      if (!answer_[i].isTensor()) throw BadInput(where_ + ": output " + std::to_string(i) + " is no tensor.");
      const auto& tensor = answer_[i].toTensor();
      Tensor info{name_at(request.outputs, i), type_name(tensor.scalar_type()), {}, tensor.nbytes()};
      info.shape.assign(tensor.sizes().begin(), tensor.sizes().end());
      outputs_.push_back(info);
    }
  }

  const std::vector<Tensor>& inputs() const override { return inputs_; }
  const std::vector<Tensor>& outputs() const override { return outputs_; }
  const std::string& signature() const override { return method_; }

  void set_input(size_t index, const unsigned char* data) override {
    std::memcpy(values_[index].data(), data, inputs_[index].bytes);
  }

  void run() override {
    auto found = module_->execute(method_, arguments_);
    if (!found.ok()) {
      throw BadInput(where_ + ": ExecuTorch refused to run " + method_ + " (" + code(found.error()) +
                     "); it needs other kernels, a .ptd beside it, other inputs, or is damaged.");
    }
    answer_ = std::move(found.get());
  }

  void get_output(size_t index, std::vector<unsigned char>& into) override {
    const auto& tensor = answer_[index].toTensor();
    const auto* data = static_cast<const unsigned char*>(tensor.const_data_ptr());
    into.insert(into.end(), data, data + tensor.nbytes());
  }

 private:
  template <typename Meta>
  void add_input(const Meta& meta, size_t index, const LoadRequest& request) {
    const auto tag = meta.input_tag(index);
    if (!tag.ok() || *tag != Tag::Tensor) {
      throw BadInput(where_ + ": input " + std::to_string(index) + " is no tensor.");
    }
    const auto info = meta.input_tensor_meta(index);
    std::vector<SizesType> sizes(info->sizes().begin(), info->sizes().end());
    size_t count = 1, most = 1;
    for (const SizesType size : sizes) most *= static_cast<size_t>(size);
    if (index < request.shapes.size()) sizes.assign(request.shapes[index].begin(), request.shapes[index].end());
    for (const SizesType size : sizes) count *= static_cast<size_t>(size);
    const size_t item = most ? info->nbytes() / most : 1;
    Tensor tensor{name_at(request.inputs, index), type_name(info->scalar_type()), {}, count * item};
    tensor.shape.assign(sizes.begin(), sizes.end());
    inputs_.push_back(tensor);
    values_.emplace_back(tensor.bytes, 0);
    tensors_.push_back(from_blob(values_.back().data(), sizes, info->scalar_type()));
    arguments_.push_back(EValue(*tensors_.back()));
  }

  // No packed 4-bit convolution exists: packed weights become bytes in memory.
  void load_inflated(const LoadRequest& request) {
    using executorch::extension::BufferDataLoader;
    using executorch::extension::MmapDataLoader;
    auto program = MmapDataLoader::from(request.model.c_str(), MmapDataLoader::MlockConfig::NoMlock);
    if (!program.ok()) throw BadInput(where_ + ": cannot be mapped (" + code(program.error()) + ").");
    try {
      weights_ = read_inflated(request.data);
    } catch (const std::runtime_error& error) {
      throw BadInput(request.data + ": " + error.what());
    }
    module_ = std::make_unique<Module>(std::make_unique<MmapDataLoader>(std::move(program.get())), nullptr, nullptr,
                                       nullptr, std::make_unique<BufferDataLoader>(weights_.data(), weights_.size()));
  }

  static std::string name_at(const std::vector<std::string>& names, size_t index) {
    return index < names.size() ? names[index] : "";
  }

  std::string where_, method_;
  std::vector<uint8_t> weights_;
  std::unique_ptr<Module> module_;
  std::vector<Tensor> inputs_, outputs_;
  std::vector<std::vector<unsigned char>> values_;
  std::vector<TensorPtr> tensors_;
  std::vector<EValue> arguments_, answer_;
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<ExecutorchEngine>(); }

}  // namespace edge
