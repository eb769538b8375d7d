// First come first served in C++, with the algorithm, the random numbers and the counts of queueing/fcfs.py:
// what a compiler of today makes of it. Arguments: devices layers proposers rate until seed; prints
// inferences, seconds, mean latency, mean number waiting and the bytes of its state.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using u64 = uint64_t;
using i64 = int64_t;

static const u64 GAMMA = 0x9E3779B97F4A7C15ull;
static const int CHECKPOINTS = 400, BINS = 64, OCTAVES = 48;

static inline u64 mixed(u64 x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}
static inline u64 branch(u64 key, u64 prompt, u64 stage) { return mixed(key + (prompt * 256 + stage + 1) * GAMMA); }
static inline double uniform(u64 key, u64 slot) { return double(mixed(key + (slot + 1) * GAMMA) >> 11) * 0x1p-53; }

struct Entry {
  i64 bits, tag;
  bool operator<(const Entry& other) const { return bits < other.bits || (bits == other.bits && tag < other.tag); }
};
static inline i64 bits_of(double value) { i64 bits; std::memcpy(&bits, &value, 8); return bits; }
static inline double time_of(i64 bits) { double value; std::memcpy(&value, &bits, 8); return value; }

struct Heap {
  std::vector<Entry> at;
  void push(double time, i64 tag) {
    Entry fresh{bits_of(time), tag};
    size_t place = at.size();
    at.push_back(fresh);
    while (place) {
      size_t above = (place - 1) >> 2;
      if (at[above] < fresh) break;
      at[place] = at[above];
      place = above;
    }
    at[place] = fresh;
  }
  void pop() {
    Entry last = at.back();
    at.pop_back();
    if (!at.empty()) top(last);
  }
  void top(Entry last) {
    size_t size = at.size(), place = 0;
    for (;;) {
      size_t child = 4 * place + 1;
      if (child >= size) break;
      size_t best = child, end = std::min(child + 4, size);
      for (size_t other = child + 1; other < end; other++)
        if (at[other] < at[best]) best = other;
      if (last < at[best]) break;
      at[place] = at[best];
      place = best;
    }
    at[place] = last;
  }
};

struct alignas(64) Device { double free = 0, waiting = 0, early = 0, late = 0, busy = 0, age = 0, seen = 0, newest = 0; };
struct Prompt { double born; i64 number; int32_t origin; int16_t stage; };

int main(int, char** arguments) {
  const i64 n = std::atoll(arguments[1]);
  const int layers = std::atoi(arguments[2]), k = std::atoi(arguments[3]);
  const double rate = std::atof(arguments[4]), until = std::atof(arguments[5]), warm = 0.2 * until;
  u64 key[4];
  for (int stream = 0; stream < 4; stream++) key[stream] = mixed(std::strtoull(arguments[6], nullptr, 10) + stream + 1);
  std::vector<Device> devices(n);
  std::vector<i64> checkpoints(CHECKPOINTS + 1, 0), histogram(OCTAVES * BINS, 0);
  std::vector<Prompt> prompts;
  std::vector<int32_t> empty;
  Heap heap;
  std::vector<i64> chosen(std::max(1, k));
  i64 arrived = 0, pushed = 0, inferences = 0, done = 0;
  double latency = 0.0;
  const double middle = (warm + until) / 2, quarter = (until - warm) / 4, scale = CHECKPOINTS / (until - warm);
  auto began = std::chrono::steady_clock::now();

  auto gap = [&](i64 prompt) { return -std::log(1.0 - uniform(branch(key[0], prompt, 0), 0)) / rate; };
  auto aged = [&](i64 device, double now) {
    Device& at = devices[device];
    double since = std::max(at.seen, warm);
    now = std::min(now, until);
    if (now > since) {
      double a = now - at.newest, b = since - at.newest;
      at.age += (a * a - b * b) / 2;
    }
    at.seen = std::max(at.seen, now);
  };
  auto serve = [&](i64 device, double now, double took) {
    Device& at = devices[device];
    double start = std::max(now, at.free), end = start + took;
    at.free = end;
    at.waiting += std::max(0.0, std::min(start, until) - std::max(now, warm));
    at.early += std::max(0.0, std::min(start, middle + quarter) - std::max(now, middle));
    at.late += std::max(0.0, std::min(start, until) - std::max(now, middle + quarter));
    at.busy += std::max(0.0, std::min(end, until) - std::max(start, warm));
    if (start > now) {
      i64 first = std::max(0.0, std::ceil((now - warm) * scale));
      i64 last = std::min(double(CHECKPOINTS), std::ceil((std::min(start, until + 1 / scale) - warm) * scale));
      if (first < last) { checkpoints[first]++; checkpoints[last]--; }
    }
    inferences++;
    return end;
  };

  double coming = gap(0);
  for (;;) {
    double now;
    int32_t slot;
    bool again = false;
    if (heap.at.empty() || coming <= time_of(heap.at[0].bits)) {
      if (coming > until) break;
      if (empty.empty()) { empty.push_back(int32_t(prompts.size())); prompts.emplace_back(); }
      slot = empty.back();
      empty.pop_back();
      now = coming;
      prompts[slot] = {now, arrived, int32_t(uniform(branch(key[1], arrived, 0), 0) * n), 1};
      arrived++;
      coming = now + gap(arrived);
    } else {
      now = time_of(heap.at[0].bits);
      slot = int32_t(heap.at[0].tag & 0xFFFFFF);
      if (now > until) break;
      again = true;
    }
    Prompt& prompt = prompts[slot];
    const i64 device = prompt.origin;
    const int at = prompt.stage;
    const u64 draw = branch(key[3], prompt.number, at);
    if (at <= layers) {
      const u64 route = branch(key[2], prompt.number, at);
      for (int place = 0; place < k; place++) {
        i64 top = n - 1 - k + place, drawn = i64(uniform(route, place) * (top + 1));
        for (int before = 0; before < place; before++)
          if (chosen[before] == drawn) { drawn = top; break; }
        chosen[place] = drawn;
      }
      double latest = now;
      for (int place = 0; place <= k; place++) {
        i64 other = place ? chosen[place - 1] + (chosen[place - 1] >= device) : device;
        latest = std::max(latest, serve(other, now, -std::log(1.0 - uniform(draw, place))));
      }
      prompt.stage++;
      if (again) heap.top({bits_of(latest), (pushed++ << 24) | slot});
      else heap.push(latest, (pushed++ << 24) | slot);
    } else {
      double end = serve(device, now, -std::log(1.0 - uniform(draw, 0)));
      if (end <= until) {
        aged(device, end);
        devices[device].newest = std::max(devices[device].newest, prompt.born);
        if (end >= warm) {
          double took = end - prompt.born;
          latency += took;
          done++;
          i64 bin = i64((std::log2(std::max(took, 1e-9)) + 24.0) * BINS);
          histogram[std::min<i64>(std::max<i64>(bin, 0), OCTAVES * BINS - 1)]++;
        }
      }
      if (again) heap.pop();
      empty.push_back(slot);
    }
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  double waits = 0;
  for (const Device& each : devices) waits += each.waiting;
  size_t bytes = n * 8 * 8 + heap.at.capacity() * sizeof(Entry) + prompts.capacity() * (sizeof(Prompt) + 4);
  std::printf("%lld %.6f %.6f %.6f %zu\n", (long long)inferences, seconds, latency / std::max<i64>(1, done), waits / (until - warm) / n, bytes);
}
