#pragma once

#include <pybind11/pybind11.h>

namespace vae_fast::device {

// The functions that launch the CUDA kernels, into a module of their own.
void bind(pybind11::module_& m);

}  // namespace vae_fast::device
