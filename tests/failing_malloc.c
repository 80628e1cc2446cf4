// An allocator that finds no memory when it is told to, for test_out_of_memory.py: LD_PRELOAD, glibc.
//
// Of what the core asks for on the thread that calls `failing_arm`, by itself or by operator new, k allocations pass and
// the next one fails, or all from there on. What is at most 24 bytes is always there: pybind11 3.0 ends the process where
// it cannot note a new object in its table of them. Others are not counted: Python and NumPy have errors of their own
// without memory, and OpenMP, which needs some for its threads, ends the process.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static __thread long left __attribute__((tls_model("initial-exec"))) = -1;
static __thread long refusals __attribute__((tls_model("initial-exec")));
static __thread int for_good __attribute__((tls_model("initial-exec")));
static long alive;

void failing_arm(long k, int every_one) {
  for_good = every_one;
  refusals = 0;
  left = k;
}

long failing_disarm(void) {
  left = -1;
  return refusals;
}

long failing_alive(void) { return __atomic_load_n(&alive, __ATOMIC_RELAXED); }

static int refuses(const void *caller, size_t size) {
  if (left < 0 || size <= 24) return 0;
  Dl_info info;
  const char *path = dladdr(caller, &info) && info.dli_fname ? info.dli_fname : "";
  if (!strstr(path, "/mfld/_core/") && !strstr(path, "libstdc++")) return 0;
  if (left > 0) {
    --left;
    return 0;
  }
  if (!for_good) left = -1;
  ++refusals;
  errno = ENOMEM;
  return 1;
}

static void *counted(void *memory) {
  if (memory) __atomic_fetch_add(&alive, 1, __ATOMIC_RELAXED);
  return memory;
}

#define REFUSES(size) refuses(__builtin_return_address(0), size)
void *malloc(size_t size) { return REFUSES(size) ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return REFUSES(n * size) ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *old, size_t size) {
  if (REFUSES(size)) return NULL;
  void *memory = __libc_realloc(old, size);
  return old ? memory : counted(memory);
}
void *memalign(size_t alignment, size_t size) { return REFUSES(size) ? NULL : counted(__libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) {
  return REFUSES(size) ? NULL : counted(__libc_memalign(alignment, size));
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  if (REFUSES(size)) return ENOMEM;
  void *memory = counted(__libc_memalign(alignment, size));
  if (!memory) return ENOMEM;
  *out = memory;
  return 0;
}
void free(void *memory) {
  if (memory) __atomic_fetch_sub(&alive, 1, __ATOMIC_RELAXED);
  __libc_free(memory);
}
