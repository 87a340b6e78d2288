// The part of DLPack 1.x (dmlc/dlpack, ABI as of version 1.3) that tensors.cpp needs: how a tensor
// lies in memory, and the table of functions by which a framework's tensors are read and made
// without a line of Python. Layouts, names of members apart, must not be changed.
#pragma once

#include <cstdint>

namespace vae_fast::dlpack {

constexpr uint32_t kMajorVersion = 1;
constexpr int32_t kCPU = 1;
constexpr uint8_t kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4;  // codes of types

struct Version {
  uint32_t major, minor;
};

struct Device {
  int32_t type, index;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t dims;
  DataType dtype;
  int64_t* sizes;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct ManagedTensor;  // a tensor and who frees it: only passed on

struct ExchangeTable {
  Version version;
  ExchangeTable* older;
  // Errors go to set_error; the functions below set Python's. Each returns 0 if all went well.
  int (*allocate)(Tensor* prototype, ManagedTensor** made, void* context,
                  void (*set_error)(void* context, const char* kind, const char* message));
  int (*managed_from_object)(void* object, ManagedTensor** made);
  int (*to_object)(ManagedTensor* taken, void** object);
  int (*from_object)(void* object, Tensor* view);  // borrowed: valid while the object is
  int (*current_stream)(int32_t device_type, int32_t index, void** stream);
};

}  // namespace vae_fast::dlpack
