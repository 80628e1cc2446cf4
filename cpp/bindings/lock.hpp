// The interpreter lock around kernels, on a thread that may outlive the interpreter.
//
// Where an interpreter has ended, Python ends a thread that wants the lock (up to 3.13; later ones let it wait). With
// glibc that unwinds its stack, which within a parallel region or a destructor ends the process by std::terminate
// instead: such a thread waits for the end of the process here.
#pragma once

#include <pybind11/pybind11.h>

#ifdef __GLIBCXX__
#include <cxxabi.h>

#include <chrono>
#include <thread>
#endif

#include <optional>

namespace mfld::bindings {

namespace py = pybind11;

template <class Body>
void unless_python_ends(const Body& body) {
#ifdef __GLIBCXX__
  try {
    body();
  } catch (const abi::__forced_unwind&) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
#else
  body();
#endif
}

class WithLock {
 public:
  WithLock() {
    unless_python_ends([this] { lock_.emplace(); });
  }

 private:
  std::optional<py::gil_scoped_acquire> lock_;
};

class WithoutLock {
 public:
  WithoutLock() : state_(PyEval_SaveThread()) {}
  ~WithoutLock() {
    unless_python_ends([this] { PyEval_RestoreThread(state_); });
  }
  WithoutLock(const WithoutLock&) = delete;
  WithoutLock& operator=(const WithoutLock&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace mfld::bindings
