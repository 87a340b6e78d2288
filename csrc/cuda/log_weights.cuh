// Samples and the log-ratio of prior to posterior at each, and their gradients.
#pragma once

#include "cuda/gaussian.cuh"

namespace vae_fast::device {

// Samples that a unit of the forward pass works on: its Gaussian is read once for all of them, and
// a sum for each is kept in shared memory.
constexpr int kSamplesAtOnce = 16;

struct LogWeightsForward {
  LogWeightsArgs args;
  int at_once;  // samples of a unit
  Walk walk;    // of groups of samples, instead of samples
  Sum log_ratio;
};

template <class F>
class LogWeightsForwardBody {
 public:
  using S = typename F::S;
  using T = typename F::T;
  static constexpr int P = F::kPack;

  __device__ __forceinline__ explicit LogWeightsForwardBody(const LogWeightsForward& call)
      : call_(call),
        in_(call.args.inputs),
        noise_(call.args),
        sums_(reinterpret_cast<T*>(shared_sums + kWarps) + threadIdx.x) {}

  __device__ __forceinline__ int enter(Place at) {
    row_ = at.row;
    first_ = at.sample * call_.at_once;
    const int64_t left = call_.args.shape.samples - first_;
    count_ = left < call_.at_once ? static_cast<int>(left) : call_.at_once;
    for (int s = 0; s < count_; ++s) sums_[s * kThreads] = T(0);
    return in_.enter({0, at.row});
  }

  __device__ __forceinline__ void visit(const Span& span) {
    const Problem& shape = call_.args.shape;
    in_.load(span);
    T root[P];
    LogRatio<T, F::kGeneral> ratio[P];
#pragma unroll
    for (int i = 0; i < P; ++i) {
      root[i] = math::exp(T(0.5) * in_.clamp(in_.logvar[i]));
      ratio[i] = in_.ratio(i);
    }
    for (int s = 0; s < count_; ++s) {
      const int64_t sample = first_ + s;
      T z[P], terms[P];
      noise_.make(span, {sample, row_}, z);
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const T eps = z[i];
        z[i] = math::fma(root[i], eps, in_.mean[i]);
        terms[i] = ratio[i].value(z[i], eps);
      }
      zero_outside(span, terms);
      sums_[s * kThreads] += pack_sum(terms);
      store<S, F::kAdjacent>(call_.args.z, (sample * shape.rows + row_) * shape.cols, span, z);
    }
  }

  // Of every sample that the block has: a group of threads may have fewer, or none.
  __device__ __forceinline__ void leave(int64_t unit, bool there) const {
    const Walk& walk = call_.walk;
    for (int s = 0; s < call_.at_once; ++s) {
      const bool has = there && s < count_;
      const T sum = group_sum(has ? sums_[s * kThreads] : T(0), walk.lanes);
      if (!has || (threadIdx.x & (walk.lanes - 1)) != 0) continue;
      const int64_t row = first_ / call_.at_once * walk.shape.rows + row_;
      const int64_t place = (first_ + s) * walk.shape.rows + row_;
      call_.log_ratio.put(place * walk.parts + (unit - row * walk.parts), static_cast<double>(sum));
    }
  }

 private:
  const LogWeightsForward& call_;
  Gaussian<F> in_;
  SampleNoise<F, LogWeightsArgs> noise_;
  T* sums_;  // in shared memory, one of this thread's every kThreads
  int64_t row_ = 0, first_ = 0;
  int count_ = 0;
};

template <int kSums>
struct LogWeightsBackward {
  LogWeightsBackwardArgs args;
  Walk walk;
  Sum sums[kSums];  // of the gradients of logvar and, with a prior, of prior_mean and prior_logvar
};

template <class F>
class LogWeightsBackwardBody {
 public:
  using S = typename F::S;
  using T = typename F::T;
  static constexpr int P = F::kPack;
  static constexpr bool kAhead = false;  // little is read for what is computed
  static constexpr bool kPlain = false;

  __device__ __forceinline__ explicit LogWeightsBackwardBody(const LogWeightsBackwardArgs& args)
      : args_(args), in_(args.inputs), noise_(args) {}

  __device__ __forceinline__ int enter(Place at) {
    row_ = at.row;
    return in_.enter(at);
  }

  __device__ __forceinline__ void operator()(const Span& span, T (&gradients)[F::kGradients][P]) {
    in_.load(span);
    T root[P];
    LogRatio<T, F::kGeneral> ratio[P];
    // Over the samples: of h, of h eps, and of the prior's gradients.
    T path[P] = {}, slope[P] = {}, prior_mean[P] = {}, prior_logvar[P] = {};
    const bool with_ratio = args_.grad_log_ratio.data != nullptr;
#pragma unroll
    for (int i = 0; i < P; ++i) {
      root[i] = math::exp(T(0.5) * in_.clamp(in_.logvar[i]));
      ratio[i] = in_.ratio(i);
    }
    T total = T(0);  // of grad_log_ratio
    for (int64_t sample = 0; sample < args_.shape.samples; ++sample) {
      const Place at{sample, row_};
      Input<T, S, P, F::kAdjacent> grad_z;
      T eps[P];
      grad_z.enter(args_.grad_z, at);
      noise_.make(span, at, eps, grad_z);
      const T g = by_row(args_.grad_log_ratio, at, T(0));
      const T share = by_row(args_.path_weight, at, T(1));
      total += g;
#pragma unroll
      for (int i = 0; i < P; ++i) {
        T h = grad_z[i];
        if (with_ratio) {
          const auto at_z = ratio[i].at(math::fma(root[i], eps[i], in_.mean[i]));
          const T v = in_.clamp(in_.logvar[i]);
          h = args_.path_only ? at_z.grad_path(h, g, eps[i] * math::exp(T(-0.5) * v))
                              : at_z.grad_z(h, g);
          if constexpr (F::kGeneral) {
            prior_mean[i] += at_z.grad_prior_mean(g);
            prior_logvar[i] += at_z.grad_prior_logvar(g);
          }
        }
        h = share * unless_zero(share, h);
        path[i] += h;
        slope[i] = add_slope(h, eps[i], slope[i]);
      }
    }
    if (args_.path_only) total = T(0);
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const T half = T(0.5) * math::fma(root_for(slope[i], root[i]), slope[i], total);
      gradients[0][i] = in_.gate(in_.logvar[i], half);
      if constexpr (F::kGeneral) {
        gradients[1][i] = prior_mean[i];
        gradients[2][i] = in_.gate(in_.prior_logvar[i], prior_logvar[i]);
      }
    }
#pragma unroll
    for (int j = 0; j < F::kGradients; ++j) zero_outside(span, gradients[j]);
    const GaussianGradients& out = args_.gradients;
    const int64_t row_start = row_ * args_.shape.cols;
    // The log-variance has the gap that the mean has.
    const int64_t of_halves = row_ * (args_.shape.cols + out.mean.row_gap);
    write(out.mean, of_halves, span, path);
    write(out.logvar, of_halves, span, gradients[0]);
    if constexpr (F::kGeneral) {
      write(out.prior_mean, row_start, span, gradients[1]);
      write(out.prior_logvar, row_start, span, gradients[2]);
    }
  }

 private:
  __device__ __forceinline__ static void write(const Output& out, int64_t row_start,
                                               const Span& span, const T (&values)[P]) {
    if (out.data != nullptr && out.reduction == Reduction::full)
      store<S, F::kAdjacent>(out, row_start, span, values);
  }

  // The element of a tensor [L, N] of the type computed in, or what stands for one not given.
  __device__ __forceinline__ static T by_row(const View& view, Place at, T without) {
    if (view.data == nullptr) return without;
    return static_cast<const T*>(
        view.data)[at.sample * view.sample_stride + at.row * view.row_stride];
  }

  const LogWeightsBackwardArgs& args_;
  Gaussian<F> in_;
  SampleNoise<F, LogWeightsBackwardArgs> noise_;
  int64_t row_ = 0;
};

template <class F>
__global__ void __launch_bounds__(kThreads, (gaussian_blocks<F, true, false>()))
    log_weights_forward_kernel(const __grid_constant__ LogWeightsForward call) {
  LogWeightsForwardBody<F> body(call);
  walk_rows<F::kPack, false>(
      call.walk, [&](Place at) { return body.enter(at); }, [](const Span&) {},
      [&](const Span& span, const Span&, bool) { body.visit(span); },
      [&](int64_t unit, bool there) { body.leave(unit, there); });
}

// Two blocks of a multiprocessor where every architecture has the registers for them.
template <class F, bool kColumns>
__global__ void __launch_bounds__(kThreads, F::kAdjacent && !F::kGeneral && F::kPack == 4 ? 2 : 1)
    log_weights_backward_kernel(const __grid_constant__ LogWeightsBackward<F::kGradients> call) {
  LogWeightsBackwardBody<F> body(call.args);
  Walker<typename F::T, F::kPack, F::kGradients, decltype(body)> walker(call.walk, call.sums, body);
  kColumns ? walker.by_columns() : walker.by_rows();
}

}  // namespace vae_fast::device
