#include "cpu/gaussian_tile.h"
#include "cpu/isa.h"
#include "cpu/random.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {
namespace {

template <class T>
void backward(const ScoreFunctionArgs& args, int threads) {
  const Tiling tiling(args.shape, args.samples);
  const Bounds<Lanes<T>> bounds{Lanes<T>(static_cast<T>(args.inputs.bounds.low)),
                                Lanes<T>(static_cast<T>(args.inputs.bounds.high))};
  Sink<T> mean(args.grad_mean, tiling), logvar(args.grad_logvar, tiling);
  const bool by_column = mean.by_column() || logvar.by_column();
  for_each_tile(tiling, threads, by_column, [&](const Tile& tile, int64_t group) {
    Buffer<T> linear, excess, upstreams, weights, raw_buffer, buffers[2];
    NoiseBuffer<T> noise;
    for (int64_t sample = 0; sample < args.samples; ++sample) {
      const T* eps = noise_of(args, sample, tile, noise);
      const Tile place = tiling.of_sample(tile, sample);
      const T* upstream = read_rows(args.upstream, place, args.shape.cols, upstreams.data);
      const T* weight = read_rows(args.weight, place, args.shape.cols, weights.data);
      for_each_vector<T>(tile.count, [&](int i, int lanes) VF_INLINE {
        Score<Lanes<T>> score{Lanes<T>(T(0)), Lanes<T>(T(0))};
        if (sample > 0) score = {get(linear.data + i, lanes), get(excess.data + i, lanes)};
        score.add(get(upstream + i, lanes), get(weight + i, lanes), get(eps + i, lanes));
        put(linear.data + i, lanes, score.linear);
        put(excess.data + i, lanes, score.excess);
      });
    }
    const T* raw_at = read(args.inputs.logvar, tile.start, tile.count, raw_buffer.data);
    const Target<T> to_mean = mean.target(tile, buffers[0].data);
    const Target<T> to_logvar = logvar.target(tile, buffers[1].data);
    for_each_vector<T>(tile.count, [&](int i, int lanes) VF_INLINE {
      const Score<Lanes<T>> score{get(linear.data + i, lanes), get(excess.data + i, lanes)};
      const Lanes<T> raw = get(raw_at + i, lanes), v = bounds.clamp(raw);
      if (mean.wanted()) to_mean.put(i, lanes, score.grad_mean(v));
      if (logvar.wanted()) to_logvar.put(i, lanes, bounds.gate(raw, v, score.grad_logvar()));
    });
    if (mean.wanted()) mean.take(tile, group, to_mean.at);
    if (logvar.wanted()) logvar.take(tile, group, to_logvar.at);
  });
  mean.finish();
  logvar.finish();
}

}  // namespace

void score_function_backward(const ScoreFunctionArgs& args, int threads, bool wide) {
  wide ? backward<double>(args, threads) : backward<float>(args, threads);
}

}  // namespace vae_fast::VF_ISA
