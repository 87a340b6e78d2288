// The encoder side: the Gaussian and its prior, the sample, the KL, and their gradients.
#pragma once

#include "common/gaussian.h"
#include "common/log_ratio.h"
#include "cuda/plan.h"
#include "cuda/sample.cuh"

namespace vae_fast::device {

// Blocks that are to fit on a multiprocessor: what keeps enough loads on their way, and registers
// for all that a thread has at hand.
template <class F, bool kSample, bool kBackward>
constexpr int gaussian_blocks() {
  if (sizeof(typename F::S) == 8) return 1;
  if (!F::kAdjacent) return kSample && kBackward ? 1 : 2;
  if (kSample && F::kPlain) return F::kPack == 4 ? 3 : 2;
  if (kSample && kBackward && F::kPack == 8 && kCapability >= 120) return 1;
  if (kSample) return F::kGeneral && F::kPack == 8 ? 1 : 2;
  if (!F::kGeneral && F::kPack == 4) return 4;
  return (F::kGeneral ? 3 : 4) - (kBackward ? 1 : 0);
}

// Whether the next pack is sent for while one is worked on: where registers are left.
template <class F, bool kSample>
constexpr bool kGaussianAhead =
    F::kPlain || (kSample && F::kAdjacent && !F::kGeneral && F::kPack == 4);

// mean, logvar and the prior at a pack.
template <class F>
class Gaussian {
 public:
  using T = typename F::T;
  template <bool kAdjacent>
  using In = Input<T, typename F::S, F::kPack, kAdjacent, F::kPlain>;

  In<true> mean;
  In<F::kAdjacent> logvar, prior_mean, prior_logvar;

  __device__ __forceinline__ explicit Gaussian(const GaussianInputs& inputs)
      : inputs_(inputs),
        bounds_{static_cast<T>(inputs.bounds.low), static_cast<T>(inputs.bounds.high)} {}

  // How many elements before the row's start a 16-byte access may begin.
  __device__ __forceinline__ int enter(Place at) {
    mean.enter(inputs_.mean, at);
    logvar.enter(inputs_.logvar, at);
    if constexpr (F::kGeneral) {
      prior_mean.enter(inputs_.prior_mean, at);
      prior_logvar.enter(inputs_.prior_logvar, at);
    }
    return static_cast<int>(reinterpret_cast<uintptr_t>(mean.row()) / sizeof(typename F::S) %
                            F::kPack);
  }
  template <class... More>
  __device__ __forceinline__ void load(const Span& span, More&... more) {
    if constexpr (F::kGeneral) {
      fetch(span, mean, logvar, prior_mean, prior_logvar, more...);
    } else {
      fetch(span, mean, logvar, more...);
    }
  }

  // The elements of a pack that was loaded there.
  __device__ __forceinline__ void take(const Gaussian& other) {
    mean.take(other.mean);
    logvar.take(other.logvar);
    if constexpr (F::kGeneral) {
      prior_mean.take(other.prior_mean);
      prior_logvar.take(other.prior_logvar);
    }
  }

  __device__ __forceinline__ T clamp(T v) const { return bounds_.clamp(v); }
  __device__ __forceinline__ T gate(T raw, T gradient) const {
    return bounds_.gate(raw, clamp(raw), gradient);
  }
  __device__ __forceinline__ GeneralKL<T> general(int i) const {
    // Without a prior_logvar there is none to clamp.
    const T p_v = inputs_.prior_logvar.data == nullptr ? T(0) : clamp(prior_logvar[i]);
    return GeneralKL<T>(mean[i], clamp(logvar[i]), prior_mean[i], p_v);
  }
  // What the log-ratio of prior to posterior needs of both, whatever the sample.
  __device__ __forceinline__ LogRatio<T, F::kGeneral> ratio(int i) const {
    const T v = clamp(logvar[i]);
    if constexpr (F::kGeneral) {
      const T p_v = inputs_.prior_logvar.data == nullptr ? T(0) : clamp(prior_logvar[i]);
      return {v, prior_mean[i], p_v};
    } else {
      return {v};
    }
  }

 private:
  const GaussianInputs& inputs_;
  Bounds<T> bounds_;
};

struct GaussianForward {
  SampleKLArgs args;
  bool floored;  // whether there is one for the KL of an element
  Walk walk;
  Sum kl[1];
};

template <class F, bool kSample>
class GaussianForwardBody {
 public:
  using S = typename F::S;
  using T = typename F::T;
  static constexpr int P = F::kPack;
  static constexpr bool kAhead = kGaussianAhead<F, kSample>, kPlain = F::kPlain;

  __device__ __forceinline__ explicit GaussianForwardBody(const GaussianForward& call)
      : call_(call),
        args_(call.args),
        in_(call.args.inputs),
        sent_(in_),
        noise_(call.args, kSample) {}

  __device__ __forceinline__ int enter(Place at) {
    row_ = at.row;
    return sent_.enter(at);
  }
  __device__ __forceinline__ void send(const Span& span) { sent_.load(span); }
  __device__ __forceinline__ void take() { in_.take(sent_); }

  __device__ __forceinline__ void operator()(const Span& span, T (&kl)[1][P]) {
    if constexpr (!kAhead) {
      send(span);
      take();
    }
    T root[P];
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const T v = in_.clamp(in_.logvar[i]);
      T value;
      if constexpr (F::kGeneral) {
        if (kSample) root[i] = math::exp(T(0.5) * v);
        value = in_.general(i).value();
      } else {
        const auto e = math::exp_half(v);
        root[i] = e.root;
        value = StandardKL<T>::value(in_.mean[i], e.expm1_minus);
      }
      kl[0][i] = value;
    }
    if (!F::kPlain && call_.floored) {
      const T floor = static_cast<T>(args_.control.floor);
#pragma unroll
      for (int i = 0; i < P; ++i) kl[0][i] = with_floor(kl[0][i], floor);
    }
    zero_outside(span, kl[0]);
    if constexpr (kSample) sample(span, root);
  }

 private:
  __device__ __forceinline__ void sample(const Span& span, const T (&root)[P]) {
    const Problem& shape = args_.shape;
    const int64_t samples = F::kPlain ? 1 : shape.samples;
    for (int64_t sample = 0; sample < samples; ++sample) {
      T eps[P];
      noise_.make(span, {sample, row_}, eps);
#pragma unroll
      for (int i = 0; i < P; ++i) eps[i] = math::fma(root[i], eps[i], in_.mean[i]);
      store<S, F::kAdjacent, F::kPlain>(args_.z, (sample * shape.rows + row_) * shape.cols, span,
                                        eps);
    }
  }

  const GaussianForward& call_;
  const SampleKLArgs& args_;
  Gaussian<F> in_, sent_;
  SampleNoise<F, SampleKLArgs> noise_;
  int64_t row_ = 0;
};

template <int kSums>
struct GaussianBackward {
  SampleKLBackwardArgs args;
  bool controlled;  // whether the KL of an element is more than a term of its row's
  Walk walk;
  Sum sums[kSums];  // of the gradients of logvar and, with a prior, of prior_mean and prior_logvar
};

template <class F, bool kSample>
class GaussianBackwardBody {
 public:
  using S = typename F::S;
  using T = typename F::T;
  static constexpr int P = F::kPack;
  static constexpr bool kAhead = kGaussianAhead<F, kSample>, kPlain = F::kPlain;

  __device__ __forceinline__ GaussianBackwardBody(const SampleKLBackwardArgs& args, bool controlled)
      : args_(args),
        in_(args.inputs),
        sent_(in_),
        with_kl_(F::kPlain || args.grad_kl.data != nullptr || args.grad_dims.data != nullptr),
        controlled_(!F::kPlain && controlled),
        through_z_(kSample && (F::kPlain || args.grad_z.data != nullptr)),
        noise_(args, kSample) {}

  __device__ __forceinline__ int enter(Place at) {
    row_ = at.row;
    if (F::kPlain || args_.grad_kl.data != nullptr)
      grad_kl_ = static_cast<const T*>(args_.grad_kl.data)[row_ * args_.grad_kl.row_stride];
    if constexpr (kSample) sent_grad_z_.enter(args_.grad_z, {0, row_});
    return sent_.enter(at);
  }
  // Of the samples the first, which may be the only one.
  __device__ __forceinline__ void send(const Span& span) {
    if constexpr (kSample)
      sent_.load(span, sent_grad_z_);
    else
      sent_.load(span);
  }
  __device__ __forceinline__ void take() {
    in_.take(sent_);
    if constexpr (kSample) grad_z_.take(sent_grad_z_);
  }

  __device__ __forceinline__ void operator()(const Span& span, T (&gradients)[F::kGradients][P]) {
    if constexpr (!kAhead) {
      send(span);
      take();
    }
    T sum[P] = {}, product[P] = {};  // over the samples, of grad_z and of grad_z * eps
    if constexpr (kSample) {
      if (through_z_) samples(span, sum, product);
    }
    T g_mean[P];
    if (controlled_) {
      elements<true>(span, sum, product, g_mean, gradients);
    } else {
      elements<false>(span, sum, product, g_mean, gradients);
    }
#pragma unroll
    for (int j = 0; j < F::kGradients; ++j) zero_outside(span, gradients[j]);
    const GaussianGradients& out = args_.gradients;
    const int64_t row_start = row_ * args_.shape.cols;
    // Halves have gaps of a row's length, the log-variance where the mean has. A shift, since a
    // second product would take registers that the kernel does not have.
    const int64_t of_halves = row_start << (out.mean.row_gap != 0 ? 1 : 0);
    write(out.mean, of_halves, span, g_mean);
    write(out.logvar, of_halves, span, gradients[0]);
    if constexpr (F::kGeneral) {
      write(out.prior_mean, row_start, span, gradients[1]);
      write(out.prior_logvar, row_start, span, gradients[2]);
    }
  }

 private:
  // kControl: with all that may be done to the KL of an element.
  template <bool kControl>
  __device__ __forceinline__ void elements(const Span& span, const T (&sum)[P],
                                           const T (&product)[P], T (&g_mean)[P],
                                           T (&gradients)[F::kGradients][P]) const {
    Input<T, T, P, false> grad_dims;
    T floor, posterior, prior;
    if constexpr (kControl) {
      grad_dims.enter(args_.grad_dims, {0, 0});
      fetch(span, grad_dims);
      floor = static_cast<T>(args_.control.floor);
      posterior = static_cast<T>(args_.control.posterior_weight);
      prior = static_cast<T>(args_.control.prior_weight);
    }
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const T raw = in_.logvar[i], v = in_.clamp(raw);
      T g_logvar = T(0), root;
      g_mean[i] = T(0);
      if constexpr (F::kGeneral) {
        const GeneralKL<T> kl = in_.general(i);
        root = kSample ? math::exp(T(0.5) * v) : T(0);
        T g = grad_kl_, g_prior = grad_kl_;
        if constexpr (kControl) {
          const T above = above_floor(kl.value(), floor, grad_kl_ + grad_dims[i]);
          g = posterior * above, g_prior = prior * above;
        }
        if (with_kl_) {
          g_mean[i] = kl.grad_mean(g);
          g_logvar = kl.grad_logvar(g);
        }
        const T g_prior_logvar = in_.gate(in_.prior_logvar[i], kl.grad_prior_logvar(g_prior));
        gradients[1][i] = with_kl_ ? kl.grad_prior_mean(g_prior) : T(0);
        gradients[2][i] = with_kl_ ? g_prior_logvar : T(0);
      } else {
        const auto e = math::exp_half(v);
        root = e.root;
        T g = grad_kl_;
        if constexpr (kControl) {
          const T value = StandardKL<T>::value(in_.mean[i], e.expm1_minus);
          g = posterior * above_floor(value, floor, grad_kl_ + grad_dims[i]);
        }
        if (with_kl_) {
          g_mean[i] = StandardKL<T>::grad_mean(g, in_.mean[i]);
          g_logvar = StandardKL<T>::grad_logvar(g, e.expm1);
        }
      }
      // A term whose upstream gradient is absent is left out, not multiplied by zero: it may be
      // infinite.
      if (through_z_) {
        g_mean[i] += sum[i];
        g_logvar += T(0.5) * root_for(product[i], root) * product[i];
      }
      gradients[0][i] = in_.gate(raw, g_logvar);
    }
  }

  __device__ __forceinline__ static void write(const Output& out, int64_t row_start,
                                               const Span& span, const T (&values)[P]) {
    if (F::kPlain || (out.data != nullptr && out.reduction == Reduction::full))
      store<S, F::kAdjacent, F::kPlain>(out, row_start, span, values);
  }

  __device__ __forceinline__ void samples(const Span& span, T (&sum)[P], T (&product)[P]) {
    const int64_t samples = F::kPlain ? 1 : args_.shape.samples;
    for (int64_t sample = 0; sample < samples; ++sample) {
      T eps[P];
      if (sample > 0) {
        grad_z_.enter(args_.grad_z, {sample, row_});
        fetch(span, grad_z_);
      }
      noise_.make(span, {sample, row_}, eps);
#pragma unroll
      for (int i = 0; i < P; ++i) {
        sum[i] += grad_z_[i];
        product[i] = add_slope(grad_z_[i], eps[i], product[i]);
      }
    }
  }

  const SampleKLBackwardArgs& args_;
  Gaussian<F> in_, sent_;
  Input<T, S, P, F::kAdjacent, F::kPlain> grad_z_, sent_grad_z_;
  bool with_kl_, controlled_, through_z_;
  SampleNoise<F, SampleKLBackwardArgs> noise_;
  int64_t row_ = 0;
  T grad_kl_ = T(0);
};

template <class F, bool kSample, bool kColumns>
__global__ void __launch_bounds__(kThreads, (gaussian_blocks<F, kSample, false>()))
    gaussian_forward_kernel(const __grid_constant__ GaussianForward call) {
  GaussianForwardBody<F, kSample> body(call);
  Walker<typename F::T, F::kPack, 1, decltype(body)> walker(call.walk, call.kl, body);
  kColumns ? walker.by_columns() : walker.by_rows();
}

template <class F, bool kSample, bool kColumns>
__global__ void __launch_bounds__(kThreads, (gaussian_blocks<F, kSample, true>()))
    gaussian_backward_kernel(const __grid_constant__ GaussianBackward<F::kGradients> call) {
  GaussianBackwardBody<F, kSample> body(call.args, call.controlled);
  Walker<typename F::T, F::kPack, F::kGradients, decltype(body)> walker(call.walk, call.sums, body);
  kColumns ? walker.by_columns() : walker.by_rows();
}

}  // namespace vae_fast::device
