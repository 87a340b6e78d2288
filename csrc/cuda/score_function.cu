#include "common/gaussian.h"
#include "cuda/choose.h"
#include "cuda/plan.h"
#include "cuda/sample.cuh"

namespace vae_fast::device {
namespace {

struct Call {
  ScoreFunctionArgs args;
  Walk walk;
  Sum sums[1];  // of the log-variance's gradient
};

template <class F>
class ScoreFunctionBody {
 public:
  using S = typename F::S;
  using T = typename F::T;
  static constexpr int P = F::kPack;
  static constexpr bool kAhead = false;  // little is read for what is computed
  static constexpr bool kPlain = false;

  __device__ __forceinline__ explicit ScoreFunctionBody(const ScoreFunctionArgs& args)
      : args_(args),
        noise_(args),
        bounds_{static_cast<T>(args.bounds.low), static_cast<T>(args.bounds.high)} {}

  // Packs begin where those of the outputs are aligned: there are two, and one input.
  __device__ __forceinline__ int enter(Place at) {
    row_ = at.row;
    logvar_.enter(args_.logvar, at);
    return static_cast<int>(row_ * (args_.shape.cols + args_.grad_mean.row_gap) % P);
  }

  __device__ __forceinline__ void operator()(const Span& span, T (&g_logvar)[1][P]) {
    fetch(span, logvar_);
    Score<T> score[P] = {};
    for (int64_t sample = 0; sample < args_.shape.samples; ++sample) {
      const T g = of_row(args_.upstream, sample), weight = of_row(args_.weight, sample);
      T eps[P];
      noise_.make(span, {sample, row_}, eps);
#pragma unroll
      for (int i = 0; i < P; ++i) score[i].add(g, weight, eps[i]);
    }
    T g_mean[P];
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const T raw = logvar_[i], v = bounds_.clamp(raw);
      g_mean[i] = score[i].grad_mean(v);
      g_logvar[0][i] = bounds_.gate(raw, v, score[i].grad_logvar());
    }
    zero_outside(span, g_logvar[0]);
    const Output &mean = args_.grad_mean, &logvar = args_.grad_logvar;
    const int64_t row_start = row_ * (args_.shape.cols + mean.row_gap);  // of both
    if (mean.data != nullptr) store<S, F::kAdjacent>(mean, row_start, span, g_mean);
    if (logvar.data != nullptr && logvar.reduction == Reduction::full)
      store<S, F::kAdjacent>(logvar, row_start, span, g_logvar[0]);
  }

 private:
  __device__ __forceinline__ T of_row(const View& view, int64_t sample) const {
    const int64_t at = sample * view.sample_stride + row_ * view.row_stride;
    return load_any<T>(view.data, view.dtype, at);
  }

  const ScoreFunctionArgs& args_;
  SampleNoise<F, ScoreFunctionArgs> noise_;
  Input<T, S, P, F::kAdjacent> logvar_;
  Bounds<T> bounds_;
  int64_t row_ = 0;
};

template <class F, bool kColumns>
__global__ void __launch_bounds__(kThreads, sizeof(typename F::S) == 8 ? 1 : 2)
    score_function_kernel(const __grid_constant__ Call call) {
  ScoreFunctionBody<F> body(call.args);
  Walker<typename F::T, F::kPack, 1, decltype(body)> walker(call.walk, call.sums, body);
  kColumns ? walker.by_columns() : walker.by_rows();
}

}  // namespace

void score_function_backward(const ScoreFunctionArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const Output sums[1] = {args.grad_logvar};
  const auto run = [&](auto form, auto columns) {
    using F = decltype(form);
    constexpr bool kColumns = decltype(columns)::value;
    const bool whole = args.shape.cols % F::kPack == 0 && args.grad_mean.row_gap % F::kPack == 0;
    Plan plan("score_function_backward", {1, args.shape.rows, args.shape.cols}, F::kPack, whole,
              kColumns, context);
    const Sum logvar = plan.sum(args.grad_logvar);
    plan.run(score_function_kernel<F, kColumns>, Call{args, plan.walk(), {logvar}}, F::kPack);
  };
  const bool adjacent = all_adjacent(args.dtype, args.shape.cols, {args.logvar, args.eps});
  with_element(args.dtype, [&](auto element) {
    using S = decltype(element);
    constexpr int P = sizeof(S) == 2 ? 8 : 4;
    if (by_column(sums)) return run(Form<S, 4, false, false>{}, std::true_type{});
    if constexpr (sizeof(S) < 8) {
      if (adjacent) return run(Form<S, P, false, true>{}, std::false_type{});
    }
    run(Form<S, P, false, false>{}, std::false_type{});
  });
}

}  // namespace vae_fast::device
