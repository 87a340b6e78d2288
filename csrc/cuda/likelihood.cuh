// The decoder side: the log-density of x, and its gradients.
#pragma once

#include "common/gaussian.h"
#include "cuda/plan.h"
#include "cuda/scalar.cuh"

namespace vae_fast::device {

// What a pass makes.
enum class Pass { value, gradients, both };

// X: elements of x. kAdjacent: x of X, mean and logvar of S, all adjacent in a row.
// kPlain: every input, and the gradients of mean and log-variance, in rows of whole packs at
// aligned addresses, of which nothing is asked at run time.
template <class S_, class X_, int kPack_, bool kAdjacent_, bool kPlain_ = false>
struct LikelihoodForm {
  using S = S_;
  using X = X_;
  using T = Compute<S>;
  static constexpr int kPack = kPack_;
  static constexpr bool kAdjacent = kAdjacent_;
  static constexpr bool kPlain = kPlain_;
};

// Blocks that are to fit on a multiprocessor: what keeps enough loads on their way, and registers
// for all that a thread has at hand.
template <class F, Pass kPass>
constexpr int likelihood_blocks() {
  if (sizeof(typename F::S) == 8) return 1;
  if (!F::kAdjacent) return 2;
  if (kPass == Pass::value) return 4;
  if (!F::kPlain) return 2;
  if (kPass == Pass::gradients) return kCapability < 80 ? 2 : 3;
  return F::kPack == 4 && kCapability < 100 ? 3 : 2;
}

// The sums are, of value: the row's, and that of all; of gradients: the log-variance's. Where both
// are made, all three.
template <Pass kPass>
constexpr int kLikelihoodSums = kPass == Pass::value       ? 1
                                : kPass == Pass::gradients ? 1
                                                           : 3;

template <Pass kPass>
struct LikelihoodCall {
  Problem shape;
  LikelihoodInputs inputs;
  LikelihoodGradients gradients;
  View grad;     // [L, N], by the log-density of a row; null: 1
  double scale;  // times this
  bool squares;  // with pass value: the value is (x - mean)^2
  View kl;       // [N], of the loss, with pass both
  Scalar beta;
  Output grad_kl;  // [N], or null
  Walk walk;
  Sum sums[kLikelihoodSums<kPass>];
};

template <class F, Pass kPass>
class LikelihoodBody {
 public:
  using S = typename F::S;
  using X = typename F::X;
  using T = typename F::T;
  static constexpr int P = F::kPack;
  static constexpr int kSums = kLikelihoodSums<kPass>;
  // Where registers are left, the next pack is sent for while one is worked on.
  static constexpr bool kPlain = F::kPlain;
  static constexpr bool kAhead = kPlain || (F::kAdjacent && kPass != Pass::value);

  __device__ __forceinline__ explicit LikelihoodBody(const LikelihoodCall<kPass>& call)
      : call_(call),
        bounds_{static_cast<T>(call.inputs.bounds.low), static_cast<T>(call.inputs.bounds.high)},
        grad_(static_cast<T>(call.scale)) {}

  __device__ __forceinline__ int enter(Place at) {
    at_ = at;
    sent_x_.enter(call_.inputs.x, at);
    sent_mean_.enter(call_.inputs.mean, at);
    sent_logvar_.enter(call_.inputs.logvar, at);
    if constexpr (kPass == Pass::gradients) {
      const View& grad = call_.grad;
      const int64_t index = at.sample * grad.sample_stride + at.row * grad.row_stride;
      grad_ = static_cast<T>(call_.scale) * load_any<T>(grad.data, grad.dtype, index);
    }
    return static_cast<int>(reinterpret_cast<uintptr_t>(sent_mean_.row()) / sizeof(S) % P);
  }
  __device__ __forceinline__ void send(const Span& span) {
    fetch(span, sent_x_, sent_mean_, sent_logvar_);
  }
  __device__ __forceinline__ void take() {
    x_.take(sent_x_);
    mean_.take(sent_mean_);
    logvar_.take(sent_logvar_);
  }

  __device__ __forceinline__ void operator()(const Span& span, T (&sums)[kSums][P]) {
    if constexpr (!kAhead) {
      send(span);
      take();
    }
    const bool unit = !kPlain && call_.inputs.logvar.data == nullptr;
    T g_mean[P], g_logvar[P], g_x[P];
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const T raw = logvar_[i], v = unit ? raw : bounds_.clamp(raw);
      const LogDensity<T> density(x_[i], mean_[i], v, math::exp(-v));
      if constexpr (kPass != Pass::gradients) sums[0][i] = density.value();
      if constexpr (kPass == Pass::value) continue;
      g_mean[i] = density.grad_mean(grad_);
      g_x[i] = -g_mean[i];
      g_logvar[i] = bounds_.gate(raw, v, density.grad_logvar(grad_));
      sums[kSums - 1][i] = g_logvar[i];
    }
    if (kPass == Pass::value && !kPlain && call_.squares) {
#pragma unroll
      for (int i = 0; i < P; ++i) sums[0][i] = squared_error(x_[i], mean_[i]);
    }
    zero_outside(span, sums[0]);
    if constexpr (kSums > 1) zero_outside(span, sums[kSums - 1]);
    if constexpr (kPass == Pass::both) {
      loss_terms(span, sums);
      if (call_.grad_kl.data != nullptr && begins_row(span)) write_grad_kl();
    }
    if constexpr (kPass != Pass::value) {
      const int64_t row = at_.sample * call_.shape.rows + at_.row;
      const int64_t row_start = row * call_.shape.cols;
      // The log-variance's gap is the mean's.
      const int64_t of_halves = row_start + row * call_.gradients.mean.row_gap;
      write<S, F::kAdjacent, kPlain>(call_.gradients.mean, of_halves, span, g_mean);
      write<S, F::kAdjacent, kPlain>(call_.gradients.logvar, of_halves, span, g_logvar);
      // Of an x that samples share, the gradient of each is summed later, and so not rounded.
      if constexpr (kPass == Pass::gradients)
        write<X, false, false>(call_.gradients.x, row_start, span, g_x);
    }
  }

 private:
  // Of the packs of all samples, the one that does what a row has to be done once.
  __device__ __forceinline__ bool begins_row(const Span& span) const {
    return span.start <= 0 && at_.sample == 0;
  }

  // beta / count, where the scale is -1 / (count L).
  __device__ __forceinline__ void write_grad_kl() const {
    const double factor = -call_.scale * static_cast<double>(call_.shape.samples);
    store_any(value_of(call_.beta) * factor, call_.grad_kl.data, call_.grad_kl.dtype, at_.row);
  }

  // What all rows add to the sum that the loss is made from: their values, less beta L kl once.
  __device__ __forceinline__ void loss_terms(const Span& span, T (&sums)[kSums][P]) const {
#pragma unroll
    for (int i = 0; i < P; ++i) sums[1][i] = sums[0][i];
    if (call_.kl.data == nullptr || !begins_row(span)) return;
    const double kl =
        load_any<double>(call_.kl.data, call_.kl.dtype, at_.row * call_.kl.row_stride);
    const double term = value_of(call_.beta) * static_cast<double>(call_.shape.samples) * kl;
#pragma unroll
    for (int i = 0; i < P; ++i)
      if (i == span.low) sums[1][i] -= static_cast<T>(term);
  }

  template <class E, bool kOnly, bool kWhole>
  __device__ __forceinline__ static void write(const Output& out, int64_t row_start,
                                               const Span& span, const T (&values)[P]) {
    if (kWhole || (out.data != nullptr && out.reduction == Reduction::full))
      store<E, kOnly, kWhole>(out, row_start, span, values);
  }

  const LikelihoodCall<kPass>& call_;
  Input<T, S, P, true, kPlain> mean_, sent_mean_;
  Input<T, X, P, F::kAdjacent, kPlain> x_, sent_x_;
  Input<T, S, P, F::kAdjacent, kPlain> logvar_, sent_logvar_;
  Bounds<T> bounds_;
  T grad_;  // by the log-density of the row
  Place at_ = {0, 0};
};

template <class F, Pass kPass, bool kColumns>
__global__ void __launch_bounds__(kThreads, (likelihood_blocks<F, kPass>()))
    likelihood_kernel(const __grid_constant__ LikelihoodCall<kPass> call) {
  LikelihoodBody<F, kPass> body(call);
  Walker<typename F::T, F::kPack, kLikelihoodSums<kPass>, decltype(body)> walker(call.walk,
                                                                                 call.sums, body);
  kColumns ? walker.by_columns() : walker.by_rows();
}

}  // namespace vae_fast::device
