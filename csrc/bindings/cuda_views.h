// Tensors as the CUDA kernels take them.
#pragma once

#include "bindings/tensors.h"
#include "cuda/kernels.h"

namespace vae_fast::device {

// Dimensions [*samples, *batch, *event] that tensors are broadcast to.
struct Axes {
  const int64_t* sizes;
  int dims;
  int first;  // dimensions of samples: 0 or 1
  int last;   // with those of the batch
  vae_fast::Device device;

  Problem problem() const;
};

bool is_empty(const Problem& shape);

// The tensor broadcast to the axes. Read in place are tensors whose batch and event dimensions are
// each walked by one stride, the event's being 1, or 0 where the tensor is broadcast over it:
// contiguous ones, rows cut from wider ones, and every simple broadcast. Of others, tensor becomes
// a copy. adjacent: it may not be repeated along a row. A tensor that does not fit is refused.
View view_of(TensorView& tensor, const Axes& axes, bool adjacent = false);
// The tensor in its own shape, with a dimension of samples in front or without, if it has so many
// elements and lies on the device.
View own_view(TensorView& tensor, int64_t count, vae_fast::Device device, bool samples,
              int event_dims = 0);

}  // namespace vae_fast::device
