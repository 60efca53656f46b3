// Runs the artifact it was written for, as an example of a host and as its own test.
//
//   host MODEL [DATA] < rows.tsv    one answer a line for each raw row of tab-separated fields, numbers in hexadecimal
//   host --raw MODEL [DATA] < in    bytes of all inputs in call order -> bytes of all outputs, until the input ends
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "engine.h"

extern "C" {
#include "model_io.h"
}

#include "host_call.h"

namespace {

using Bytes = std::vector<unsigned char>;

// Place of the tensor among the engine's: by name where the format keeps names, else in call order.
size_t place_of(const std::vector<edge::Tensor>& tensors, const std::string& name, size_t otherwise) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return i;
  }
  return otherwise;
}

struct Host {
  std::unique_ptr<edge::Engine> engine = edge::make_engine();
  std::vector<size_t> inputs, outputs;

  Host(const std::string& model, const std::string& data) {
    edge::LoadRequest request;
    request.model = model;
    request.data = data;
    request.signature = EDGE_METHOD;
    request.kernels = "default";
    for (const auto& shape : edge_input_shapes) request.shapes.push_back(shape);
    engine->load(request);
    for (int i = 0; i < edge_input_count; ++i) {
      inputs.push_back(place_of(engine->inputs(), edge_inputs[i].name, static_cast<size_t>(i)));
      if (engine->inputs().at(inputs.back()).bytes != edge_inputs[i].bytes) {
        throw edge::BadInput(model + ": is not the file that this host was written for.");
      }
    }
    for (int i = 0; i < edge_output_count; ++i) {
      outputs.push_back(place_of(engine->outputs(), edge_outputs[i].name, static_cast<size_t>(i)));
    }
  }

  std::vector<Bytes> answer(const std::vector<Bytes>& given) {
    for (size_t i = 0; i < given.size(); ++i) engine->set_input(inputs[i], given[i].data());
    engine->run();
    std::vector<Bytes> found(outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) engine->get_output(outputs[i], found[i]);
    return found;
  }
};

std::vector<Bytes> room() {
  std::vector<Bytes> made;
  for (int i = 0; i < edge_input_count; ++i) made.emplace_back(edge_inputs[i].bytes);
  return made;
}

int score_rows(Host& host) {
  std::vector<Bytes> given = room();
  std::vector<void*> places;
  for (Bytes& bytes : given) places.push_back(bytes.data());
  std::string line;
  for (int row = 1; std::getline(std::cin, line); ++row) {
    std::vector<std::string> fields(1);
    for (const char c : line) {
      if (c == '\t') {
        fields.emplace_back();
      } else {
        fields.back() += c;
      }
    }
    std::vector<const char*> texts;
    for (const std::string& field : fields) texts.push_back(field.c_str());
    if (static_cast<int>(fields.size()) != edge_field_count || edge_encode_row(texts.data(), places.data()) != 0) {
      std::fprintf(stderr, "row %d: cannot be read\n", row);
      return 1;
    }
    const std::vector<Bytes> found = host.answer(given);
    for (int i = 0; i < edge_output_count; ++i) {
      std::vector<float> values(edge_outputs[i].count);
      edge_decode_output(i, found[static_cast<size_t>(i)].data(), values.data());
      for (const float value : values) std::printf("%a ", static_cast<double>(value));
    }
    std::printf("\n");
  }
  return 0;
}

int run_raw(Host& host) {
  std::vector<Bytes> given = room();
  while (true) {
    for (Bytes& bytes : given) {
      std::cin.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      if (!std::cin) return 0;
    }
    for (const Bytes& bytes : host.answer(given)) std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  }
}

}  // namespace

int main(int count, char** words) {
  std::vector<std::string> rest(words + 1, words + count);
  const bool raw = !rest.empty() && rest[0] == "--raw";
  if (raw) rest.erase(rest.begin());
  if (rest.empty() || rest.size() > 2) {
    std::fprintf(stderr, "usage: host [--raw] MODEL [DATA]\n");
    return 2;
  }
  try {
    Host host(rest[0], rest.size() > 1 ? rest[1] : "");
    return raw ? run_raw(host) : score_rows(host);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
