// The arguments of an op as Python gives them, for the bindings of every device.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bindings/tensors.h"

namespace vae_fast {

using Object = const pybind11::object&;
using Samples = const std::optional<int64_t>&;  // L, where the samples have a dimension

// The low 64 bits of an int or of what converts to one, a 0-dim tensor among them; 0 for None.
inline uint64_t low_bits(Object given) {
  if (given.is_none()) return 0;
  const auto number = pybind11::reinterpret_steal<pybind11::object>(PyNumber_Long(given.ptr()));
  if (!number) throw pybind11::error_already_set();
  return PyLong_AsUnsignedLongLongMask(number.ptr());
}

inline double number(const pybind11::tuple& tuple, int index) {
  const double value = PyFloat_AsDouble(PyTuple_GET_ITEM(tuple.ptr(), index));
  if (value == -1.0 && PyErr_Occurred()) throw pybind11::error_already_set();
  return value;
}
inline LogVarBounds bounds_of(const pybind11::tuple& bounds) {
  return {number(bounds, 0), number(bounds, 1)};
}
inline KLControl control_of(const pybind11::tuple& control) {
  return {number(control, 0), number(control, 1), number(control, 2)};
}

// Of each gradient: whether it is needed, or the tensor that it goes to.
inline bool needed(const pybind11::tuple& needs, int index) {
  return PyTuple_GET_ITEM(needs.ptr(), index) != Py_False;
}

inline DType compute_dtype(bool wide) { return wide ? DType::float64 : DType::float32; }

// The posterior and its prior.
struct Gaussian {
  TensorView mean, logvar, prior_mean, prior_logvar;
  pybind11::object shaped;  // whose sizes the frame's are, also if the mean is replaced by a copy
  Frame frame;              // of the mean

  Gaussian(Object mean, Object logvar, Object prior_mean, Object prior_logvar, int event_dims)
      : mean(read(mean)),
        logvar(read(logvar)),
        prior_mean(read(prior_mean)),
        prior_logvar(read(prior_logvar)),
        shaped(this->mean.tensor),
        frame{this->mean.sizes, this->mean.dims, event_dims, this->mean.device} {}
  bool wide() const {
    return mean.is_double() || logvar.is_double() || prior_mean.is_double() ||
           prior_logvar.is_double();
  }
  // Rows, and elements, of as many samples as there are.
  int64_t rows(Samples samples) const { return samples.value_or(1) * frame.shape().rows; }
  int64_t count(Samples samples) const { return rows(samples) * frame.shape().cols; }
};

// Gradients of the Gaussian's tensors that need one.
struct NewGradients {
  NewTensor mean, logvar, prior_mean, prior_logvar;

  NewGradients(const Gaussian& in, const pybind11::tuple& needs)
      : mean(make(needs, 0, in.mean, in.frame)),
        logvar(make(needs, 1, in.logvar, in.frame)),
        prior_mean(make(needs, 2, in.prior_mean, in.frame)),
        prior_logvar(make(needs, 3, in.prior_logvar, in.frame)) {}
  pybind11::tuple zeros() const {
    for (const NewTensor* each : {&mean, &logvar, &prior_mean, &prior_logvar}) fill_zero(*each);
    return tensors();
  }
  pybind11::tuple tensors() const {
    return pybind11::make_tuple(mean.tensor, logvar.tensor, prior_mean.tensor, prior_logvar.tensor);
  }

  static NewTensor make(const pybind11::tuple& needs, int index, const TensorView& input,
                        const Frame& frame) {
    if (!input.given() || !needed(needs, index)) return {};
    const pybind11::handle need = PyTuple_GET_ITEM(needs.ptr(), index);
    if (need.ptr() == Py_True) return make_gradient(input, frame);
    return as_gradient(pybind11::reinterpret_borrow<pybind11::object>(need), frame);
  }
};

// The decoder's side.
struct Likelihood {
  TensorView x, mean, logvar;
  pybind11::object shaped;  // as that of a Gaussian
  Frame frame;              // of the mean, the samples' dimension among those of the batch
  bool shares_x;            // x has no dimension of samples where the mean has one

  Likelihood(Object x, Object mean, Object logvar, int event_dims)
      : x(read(x)),
        mean(read(mean)),
        logvar(read(logvar)),
        shaped(this->mean.tensor),
        frame{this->mean.sizes, this->mean.dims, event_dims, this->mean.device},
        shares_x(this->mean.dims > this->x.dims) {}
  bool wide() const { return x.is_double() || mean.is_double() || logvar.is_double(); }
  int64_t samples() const { return shares_x ? mean.sizes[0] : 1; }

  // The gradient of an x that the samples share has the mean's shape, and is still to be summed: it
  // is of the type computed in, double where wide.
  NewTensor new_grad_x(const pybind11::tuple& needs, bool wide) const {
    if (!needed(needs, 0)) return {};
    return make_samples(frame, shares_x ? compute_dtype(wide) : x.dtype, {});
  }
};

// What negative_elbo returns: the loss, the log-likelihoods, and the loss's gradients asked for.
struct NewLoss {
  NewTensor loss, log_likelihood, grad_mean, grad_logvar, grad_kl;

  NewLoss(const Likelihood& in, const TensorView& kl, LossReduction reduction,
          const pybind11::tuple& needs, DType dtype)
      : loss(
            make(kl.sizes, reduction == LossReduction::none ? kl.dims : 0, dtype, in.frame.device)),
        log_likelihood(make(kl.sizes, kl.dims, dtype, in.frame.device, Reduction::row)),
        grad_mean(NewGradients::make(needs, 0, in.mean, in.frame)),
        grad_logvar(NewGradients::make(needs, 1, in.logvar, in.frame)) {
    if (needed(needs, 2)) grad_kl = make(kl.sizes, kl.dims, kl.dtype, in.frame.device);
  }
  pybind11::tuple tensors() const {
    return pybind11::make_tuple(
        loss.tensor, log_likelihood.tensor,
        pybind11::make_tuple(grad_mean.tensor, grad_logvar.tensor, grad_kl.tensor));
  }
};

}  // namespace vae_fast
