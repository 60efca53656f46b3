// .tflite files by libLiteRt of the ai-edge-litert wheel. The wheel has no headers: what is declared here is what this
// version exports (see TESTED_VERSIONS in libraries.py).
#include <cstring>

#include "engine.h"

extern "C" {
int LiteRtCreateEnvironment(int count, const void* options, void** environment);
int LiteRtCreateModelFromFile(void* environment, const char* path, void** model);
int LiteRtCreateOptions(void** options);
int LiteRtSetOptionsHardwareAccelerators(void* options, int accelerators);
int LiteRtCreateOpaqueOptions(const char* identifier, void* payload, void (*release)(void*), void** options);
int LiteRtAddOpaqueOptions(void* options, void* opaque);
int LiteRtCreateCompiledModel(void* environment, void* model, void* options, void** compiled);
int LiteRtGetNumModelSignatures(void* model, size_t* count);
int LiteRtGetModelSignature(void* model, size_t index, void** signature);
int LiteRtGetSignatureKey(void* signature, const char** key);
int LiteRtGetNumSignatureInputs(void* signature, size_t* count);
int LiteRtGetNumSignatureOutputs(void* signature, size_t* count);
int LiteRtGetSignatureInputName(void* signature, size_t index, const char** name);
int LiteRtGetSignatureOutputName(void* signature, size_t index, const char** name);
int LiteRtGetSignatureInputTensorByIndex(void* signature, size_t index, void** tensor);
int LiteRtGetSignatureOutputTensorByIndex(void* signature, size_t index, void** tensor);
int LiteRtGetRankedTensorType(void* tensor, void* type);
int LiteRtCompiledModelResizeInputTensorNonStrict(void* compiled, size_t signature, size_t input, const int* sizes,
                                                  size_t rank);
int LiteRtGetCompiledModelOutputTensorLayouts(void* compiled, size_t signature, size_t count, void* layouts, bool update);
int LiteRtGetCompiledModelInputBufferRequirements(void* compiled, size_t signature, size_t index, void** needs);
int LiteRtGetCompiledModelOutputBufferRequirements(void* compiled, size_t signature, size_t index, void** needs);
int LiteRtCreateManagedTensorBufferFromRequirements(void* environment, const void* type, void* needs, void** buffer);
int LiteRtGetTensorBufferPackedSize(void* buffer, size_t* bytes);
int LiteRtLockTensorBuffer(void* buffer, void** data, int mode);
int LiteRtUnlockTensorBuffer(void* buffer);
int LiteRtRunCompiledModel(void* compiled, size_t signature, size_t inputs, void** in, size_t outputs, void** out);
}

namespace edge {
namespace {

constexpr int kCpu = 1;
constexpr int kRead = 0, kWrite = 1;
constexpr int kMostDimensions = 8;

struct Layout {
  uint32_t rank_and_flags;
  int32_t sizes[kMostDimensions];
  uint32_t strides[kMostDimensions];
  int rank() const { return static_cast<int>(rank_and_flags & 0x7f); }
};

struct TensorType {
  int32_t element;
  Layout layout;
};

std::string type_name(int element) {
  switch (element) {
    case 1: return "float32";
    case 2: return "int32";
    case 3: return "uint8";
    case 4: return "int64";
    case 6: return "bool";
    case 7: return "int16";
    case 9: return "int8";
    case 10: return "float16";
    case 11: return "float64";
    case 18: return "int4";
    default: throw BadInput("tensor type " + std::to_string(element) + ": unknown to the runner.");
  }
}

void keep(void*) {}

class LitertEngine : public Engine {
 public:
  void load(const LoadRequest& request) override {
    where_ = request.model;
    // This interface takes "reference" and runs the builtin kernels all the same.
    if (request.kernels != "default" && request.kernels != "builtin") {
      throw BadInput("kernels = " + request.kernels + ": the native runner has default and builtin.");
    }
    void* options = nullptr;
    check(LiteRtCreateEnvironment(0, nullptr, &environment_), "LiteRtCreateEnvironment");
    check(LiteRtCreateModelFromFile(environment_, request.model.c_str(), &model_), "LiteRtCreateModelFromFile");
    check(LiteRtCreateOptions(&options), "LiteRtCreateOptions");
    check(LiteRtSetOptionsHardwareAccelerators(options, kCpu), "LiteRtSetOptionsHardwareAccelerators");
    cpu_ = "num_threads = " + std::to_string(request.threads) + "\n";
    if (request.kernels != "default") cpu_ = "kernel_mode = \"" + request.kernels + "\"\n" + cpu_;
    void* opaque = nullptr;
    check(LiteRtCreateOpaqueOptions("xnnpack", cpu_.data(), keep, &opaque), "LiteRtCreateOpaqueOptions");
    check(LiteRtAddOpaqueOptions(options, opaque), "LiteRtAddOpaqueOptions");
    check(LiteRtCreateCompiledModel(environment_, model_, options, &compiled_), "LiteRtCreateCompiledModel");
    choose(request.signature);
    find_inputs(request);
    find_outputs(request);
  }

  const std::vector<Tensor>& inputs() const override { return inputs_; }
  const std::vector<Tensor>& outputs() const override { return outputs_; }
  const std::string& signature() const override { return key_; }

  void set_input(size_t index, const unsigned char* data) override {
    void* memory = nullptr;
    void* buffer = in_[in_order_[index]];
    check(LiteRtLockTensorBuffer(buffer, &memory, kWrite), "LiteRtLockTensorBuffer");
    std::memcpy(memory, data, inputs_[index].bytes);
    check(LiteRtUnlockTensorBuffer(buffer), "LiteRtUnlockTensorBuffer");
  }

  void run() override {
    check(LiteRtRunCompiledModel(compiled_, index_, in_.size(), in_.data(), out_.size(), out_.data()),
          "LiteRtRunCompiledModel (an id out of range?)");
  }

  void get_output(size_t index, std::vector<unsigned char>& into) override {
    void* memory = nullptr;
    void* buffer = out_[out_order_[index]];
    check(LiteRtLockTensorBuffer(buffer, &memory, kRead), "LiteRtLockTensorBuffer");
    const auto* data = static_cast<const unsigned char*>(memory);
    into.insert(into.end(), data, data + outputs_[index].bytes);
    check(LiteRtUnlockTensorBuffer(buffer), "LiteRtUnlockTensorBuffer");
  }

 private:
  void check(int status, const char* call) const {
    if (status) {
      throw BadInput(where_ + ": LiteRT refused it (" + call + " gave status " + std::to_string(status) + ").");
    }
  }

  void choose(const std::string& wanted) {
    size_t count = 0;
    check(LiteRtGetNumModelSignatures(model_, &count), "LiteRtGetNumModelSignatures");
    for (size_t i = 0; i < count; ++i) {
      const char* key = nullptr;
      check(LiteRtGetModelSignature(model_, i, &signature_), "LiteRtGetModelSignature");
      check(LiteRtGetSignatureKey(signature_, &key), "LiteRtGetSignatureKey");
      key_ = key ? key : "";
      index_ = i;
      if (wanted.empty() || key_ == wanted || count == 1) return;
    }
    throw BadInput(where_ + ": has no signature " + wanted + ".");
  }

  // Places of the wanted names; a file without names is taken in its own order.
  static std::vector<size_t> places(const std::vector<std::string>& have, const std::vector<std::string>& wanted) {
    std::vector<size_t> order;
    for (const std::string& name : wanted) {
      for (size_t i = 0; i < have.size(); ++i) {
        if (have[i] == name) order.push_back(i);
      }
    }
    if (order.size() != have.size()) {
      order.clear();
      for (size_t i = 0; i < have.size(); ++i) order.push_back(i);
    }
    return order;
  }

  static Tensor tensor_of(const std::string& name, const TensorType& type, size_t bytes) {
    Tensor tensor{name, type_name(type.element), {}, bytes};
    tensor.shape.assign(type.layout.sizes, type.layout.sizes + type.layout.rank());
    return tensor;
  }

  void find_inputs(const LoadRequest& request) {
    size_t count = 0;
    check(LiteRtGetNumSignatureInputs(signature_, &count), "LiteRtGetNumSignatureInputs");
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) {
      const char* name = nullptr;
      check(LiteRtGetSignatureInputName(signature_, i, &name), "LiteRtGetSignatureInputName");
      names.emplace_back(name ? name : "");
    }
    in_order_ = places(names, request.inputs);
    std::vector<TensorType> types(count);
    for (size_t place = 0; place < count; ++place) {
      const size_t i = in_order_[place];
      void* tensor = nullptr;
      check(LiteRtGetSignatureInputTensorByIndex(signature_, i, &tensor), "LiteRtGetSignatureInputTensorByIndex");
      check(LiteRtGetRankedTensorType(tensor, &types[i]), "LiteRtGetRankedTensorType");
      resize(types[i].layout, i, place, request);
    }
    for (size_t i = 0; i < count; ++i) {
      void* needs = nullptr;
      check(LiteRtGetCompiledModelInputBufferRequirements(compiled_, index_, i, &needs), "input requirements");
      in_.push_back(buffer(types[i], needs));
    }
    for (const size_t i : in_order_) inputs_.push_back(tensor_of(names[i], types[i], packed(in_[i])));
  }

  void resize(Layout& layout, size_t index, size_t place, const LoadRequest& request) {
    // The caller knows which sizes the file leaves open: a layout says 1 for them, or -1.
    bool is_other = false;
    for (int d = 0; d < layout.rank(); ++d) {
      const bool given = place < request.shapes.size() && d < static_cast<int>(request.shapes[place].size());
      const auto wanted = given ? static_cast<int32_t>(request.shapes[place][static_cast<size_t>(d)]) : 1;
      is_other = is_other || layout.sizes[d] < 0 || (given && wanted != layout.sizes[d]);
      if (given || layout.sizes[d] < 0) layout.sizes[d] = wanted;
    }
    if (is_other) {
      check(LiteRtCompiledModelResizeInputTensorNonStrict(compiled_, index_, index, layout.sizes,
                                                          static_cast<size_t>(layout.rank())),
            "LiteRtCompiledModelResizeInputTensorNonStrict");
    }
  }

  void find_outputs(const LoadRequest& request) {
    size_t count = 0;
    check(LiteRtGetNumSignatureOutputs(signature_, &count), "LiteRtGetNumSignatureOutputs");
    std::vector<Layout> layouts(count);
    check(LiteRtGetCompiledModelOutputTensorLayouts(compiled_, index_, count, layouts.data(), true), "output layouts");
    std::vector<std::string> names;
    std::vector<TensorType> types(count);
    for (size_t i = 0; i < count; ++i) {
      const char* name = nullptr;
      void *tensor = nullptr, *needs = nullptr;
      check(LiteRtGetSignatureOutputName(signature_, i, &name), "LiteRtGetSignatureOutputName");
      names.emplace_back(name ? name : "");
      check(LiteRtGetSignatureOutputTensorByIndex(signature_, i, &tensor), "LiteRtGetSignatureOutputTensorByIndex");
      check(LiteRtGetRankedTensorType(tensor, &types[i]), "LiteRtGetRankedTensorType");
      types[i].layout = layouts[i];
      check(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, index_, i, &needs), "output requirements");
      out_.push_back(buffer(types[i], needs));
    }
    out_order_ = places(names, request.outputs);
    for (const size_t i : out_order_) outputs_.push_back(tensor_of(names[i], types[i], packed(out_[i])));
  }

  void* buffer(const TensorType& type, void* needs) const {
    void* made = nullptr;
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, needs, &made), "a tensor buffer");
    return made;
  }

  size_t packed(void* made) const {
    size_t bytes = 0;
    check(LiteRtGetTensorBufferPackedSize(made, &bytes), "LiteRtGetTensorBufferPackedSize");
    return bytes;
  }

  std::string where_, key_, cpu_;
  size_t index_ = 0;
  void *environment_ = nullptr, *model_ = nullptr, *compiled_ = nullptr, *signature_ = nullptr;
  std::vector<void*> in_, out_;  // in the file's order
  std::vector<size_t> in_order_, out_order_;
  std::vector<Tensor> inputs_, outputs_;  // in the caller's order
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<LitertEngine>(); }

}  // namespace edge
