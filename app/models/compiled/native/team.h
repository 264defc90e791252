// The threads of a pass: what they hand out among themselves, and where they wait for each other.
//
// Each has a stretch of its own of the parts of every loop: two threads that take turns at the parts of one stretch read
// memory no faster than one alone. Who is done takes from the stretches of others: a thread that has lost its core to another
// process holds the others up by one part at most.

#pragma once

#include <atomic>
#include <cstdint>
#include <immintrin.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int64_t MOST_THREADS = 64;
// Looks at whether all have come before a thread sleeps: some tens of microseconds, since to be woken takes as long.
constexpr int64_t MOST_LOOKS = 3000;
constexpr int64_t LINE_BYTES = 64;

class Team {
  public:
    // The next part of a thread's stretch that nobody has taken, from 0 on.
    int64_t take(int64_t whose) { return stretches[whose].taken.fetch_add(1, std::memory_order_relaxed); }

    // Returns when all `num_threads` are here; the stretches are untouched then.
    void wait(int64_t num_threads) {
        const int32_t now = round.load(std::memory_order_relaxed);
        if (num_here.fetch_add(1, std::memory_order_acq_rel) == num_threads - 1) {
            num_here.store(0, std::memory_order_relaxed);
            for (int64_t i = 0; i < num_threads; i++) stretches[i].taken.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_seq_cst);
            if (num_asleep.load(std::memory_order_seq_cst)) syscall(SYS_futex, &round, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr);
            return;
        }
        for (int64_t looks = 0; looks < MOST_LOOKS; looks++) {
            if (round.load(std::memory_order_acquire) != now) return;
            _mm_pause();
        }
        num_asleep.fetch_add(1, std::memory_order_seq_cst);
        while (round.load(std::memory_order_seq_cst) == now) syscall(SYS_futex, &round, FUTEX_WAIT_PRIVATE, now, nullptr);
        num_asleep.fetch_sub(1, std::memory_order_relaxed);
    }

  private:
    struct alignas(LINE_BYTES) Stretch {
        std::atomic<int64_t> taken{0};
    };
    alignas(LINE_BYTES) std::atomic<int32_t> round{0};
    std::atomic<int32_t> num_asleep{0};
    alignas(LINE_BYTES) std::atomic<int64_t> num_here{0};
    Stretch stretches[MOST_THREADS];
};

// One thread of a team.
struct Member {
    Team& team;
    int64_t thread, num_threads;

    // The first part of a thread's stretch.
    int64_t begin(int64_t num_parts, int64_t whose) const { return num_parts * whose / num_threads; }

    // use(part) for each of num_parts, as threads become free; all are done when it returns.
    template <class Use>
    void share(int64_t num_parts, Use use) const {
        for (int64_t i = 0; i < num_threads; i++) {
            const int64_t whose = (thread + i) % num_threads, first = begin(num_parts, whose);
            const int64_t num = begin(num_parts, whose + 1) - first;
            for (int64_t at; (at = team.take(whose)) < num;) use(first + at);
        }
        team.wait(num_threads);
    }
};

}  // namespace
